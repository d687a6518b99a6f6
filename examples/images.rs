//! A stack of images, n x height x width of u8: a row is an image. One value per image, and an
//! image per image.
//!
//! cargo run --release --example images -- [--images N]

mod support;

use ndarray::{ArrayRef, Ix2, Zip};
use rowfork::SharedArray;
use support::{Options, rows_that_fit};

const HEIGHT: usize = 64;
const WIDTH: usize = 64;

/// Image `n`: a bright disc on a dark ground, of a size and at a place of its own.
fn pixel(n: usize, y: usize, x: usize) -> u8 {
    let squared = y.abs_diff(20 + n * 7 % 24).pow(2) + x.abs_diff(20 + n * 11 % 24).pow(2);
    if squared < (10 + n % 6).pow(2) {
        250 - u8::try_from(squared).expect("below 15 * 15")
    } else {
        16
    }
}

/// Half as high, half as wide: the mean of each 2 x 2 pixels, rounded. Plain ndarray: it knows
/// nothing of rowfork.
fn halve(image: &ArrayRef<u8, Ix2>, small: &mut ArrayRef<u8, Ix2>) {
    Zip::from(small).and(image.exact_chunks((2, 2))).for_each(|small, four| {
        let sum: u16 = four.iter().map(|&pixel| u16::from(pixel)).sum();
        *small = u8::try_from((sum + 2) / 4).expect("a mean of bytes is a byte");
    });
}

fn main() -> Result<(), rowfork::Error> {
    let options = Options::from_args("images [--images N]", &["--images"]);
    let n_images = rows_that_fit(options.count("--images", 20_000), HEIGHT * WIDTH * 5 / 4);
    let images =
        SharedArray::from_shape_fn(None, (n_images, HEIGHT, WIDTH), |(n, y, x)| pixel(n, y, x))?;
    println!("{n_images} images of {HEIGHT} x {WIDTH}, {} MB", images.len() / 1_000_000);

    // One value per image. Sums of u8 are exact, in u64, so the mean is rounded once.
    let sums = rowfork::fork().row_sums(&images)?;
    let brightness = sums.view().mapv(|sum| sum as f64 / (HEIGHT * WIDTH) as f64);
    println!(
        "mean brightness of the first images: {:.2}",
        brightness.slice(ndarray::s![..n_images.min(5)])
    );

    // An image per image, of another shape: the output is n x 32 x 32.
    let thumbnails =
        rowfork::fork().transform_rows(&images, (HEIGHT / 2, WIDTH / 2), |image, small| {
            halve(&image, small);
        })?;
    assert_eq!(thumbnails.shape(), [n_images, HEIGHT / 2, WIDTH / 2]);

    // The last thumbnail; every other line, since letters are higher than wide.
    let last = thumbnails.view().index_axis_move(ndarray::Axis(0), n_images - 1);
    for line in last.rows().into_iter().step_by(2) {
        println!(
            "    {}",
            line.iter()
                .map(|&p| b" .:-=+*#%@"[usize::from(p) * 10 / 256] as char)
                .collect::<String>()
        );
    }

    // Checked: one pixel by hand, and no thumbnail's mean is further off than rounding explains.
    let by_hand = [(0, 0), (0, 1), (1, 0), (1, 1)]
        .map(|(y, x)| u16::from(pixel(n_images - 1, 30 + y, 40 + x)));
    assert_eq!(u16::from(last[[15, 20]]), (by_hand.iter().sum::<u16>() + 2) / 4);
    let small = rowfork::fork()
        .map_rows(&thumbnails, |image| image.mapv(f64::from).mean().ok_or("no pixels"))?;
    assert!(
        small.view().iter().zip(&brightness).all(|(small, large)| (small - large).abs() <= 0.5)
    );
    println!("{n_images} thumbnails, as bright as their images");
    print!("{}", thumbnails.report());
    Ok(())
}
