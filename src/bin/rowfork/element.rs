//! From NumPy's name of an element type to the type: where a header says it, and code is to be
//! chosen.

/// Does something with the type of an element by NumPy's name of it: of `any`, or of `f64`, which
/// leaves it to the library to refuse all others.
macro_rules! with_element {
    (f64, $dtype:ident, $A:ident => $work:expr) => {{
        type $A = f64;
        let _ = $dtype;
        $work
    }};
    (any, $dtype:ident, $A:ident => $work:expr) => {
        with_element!($dtype, $A => $work,
            "f4" f32, "i1" i8, "i2" i16, "i4" i32, "i8" i64, "u1" u8, "u2" u16, "u4" u32, "u8" u64, "b1" rowfork::Bool)
    };
    ($dtype:ident, $A:ident => $work:expr, $($descr:literal $type:ty),+) => {
        match crate::element::bare($dtype) {
            $($descr => {
                type $A = $type;
                $work
            })+
            _ => with_element!(f64, $dtype, $A => $work),
        }
    };
}
pub(crate) use with_element;

/// An element type by NumPy's name, without the mark of its byte order, of which there is one here.
pub(crate) fn bare(dtype: &str) -> &str {
    dtype.strip_prefix(['<', '=', '|']).unwrap_or(dtype)
}
