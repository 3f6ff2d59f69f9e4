//! Pillow's `ImageFilter.GaussianBlur`: three box blurs along the rows and three along the columns, each from bytes to
//! bytes, whose variances add up to the Gaussian's. So it gives Pillow's bytes.
//!
//! Source: Pillow 12, `src/libImaging/BoxBlur.c`; Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution
//! by extended box filtering".

/// Box blurs along each axis.
const PASSES: usize = 3;

/// One channel of this width, blurred by a Gaussian of this deviation in pixels, which is finite and not negative.
pub(super) fn blur(grey: &[u8], width: usize, deviation: f32) -> Vec<u8> {
    let kernel = Kernel::of(deviation);
    let rows = blur_rows(grey, width, &kernel);
    let height = grey.len() / width;
    transposed(&blur_rows(&transposed(&rows, width), height, &kernel), height)
}

/// Weights of 24 binary places.
struct Kernel {
    /// Pixels to each side that count in full.
    radius: usize,
    full: u32,
    /// Of the two pixels next to those.
    far: u32,
}

impl Kernel {
    fn of(deviation: f32) -> Self {
        let variance = f64::from(deviation * deviation / PASSES as f32) as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let next = (whole + 1.0) * (whole + 1.0);
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance) / (6.0 * (variance - next));
        let size = whole + part;
        let radius = size as usize;
        let full = ((1u32 << 24) as f32 / (size * 2.0 + 1.0)) as u32;
        Self { radius, full, far: ((1 << 24) - (radius as u32 * 2 + 1) * full) / 2 }
    }

    /// A row's pixels, of which the first and the last go on for ever.
    fn line(&self, row: &[u8]) -> Vec<u8> {
        let last = row.len() as isize - 1;
        let pixel = |x: isize| u32::from(row[x.clamp(0, last) as usize]);
        let reach = self.radius as isize;
        let mut sum: u32 = (-reach - 1..reach).map(pixel).sum();
        let blurred = (0..=last).map(|x| {
            sum = sum + pixel(x + reach) - pixel(x - reach - 1);
            let far = pixel(x - reach - 1) + pixel(x + reach + 1);
            ((sum * self.full + far * self.far + (1 << 23)) >> 24) as u8
        });
        blurred.collect()
    }
}

fn blur_rows(grey: &[u8], width: usize, kernel: &Kernel) -> Vec<u8> {
    let blurred = |row: &[u8]| (0..PASSES).fold(row.to_vec(), |row, _| kernel.line(&row));
    grey.chunks_exact(width).flat_map(blurred).collect()
}

fn transposed(grey: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|x| grey.iter().skip(x).step_by(width)).copied().collect()
}
