//! From NumPy's name of an element type to the type. The header of an array says the name, and the
//! code for that type is to be chosen.

/// Runs `$work` with `$A` as the element type that NumPy's name says. `any` knows all types. `f64`
/// takes doubles, whatever the name is; the library then refuses the others.
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

/// NumPy's name of an element type without the mark of its byte order. Only the native order comes
/// here.
pub(crate) fn bare(dtype: &str) -> &str {
    dtype.strip_prefix(['<', '=', '|']).unwrap_or(dtype)
}
