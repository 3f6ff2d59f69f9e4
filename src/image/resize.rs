//! Pictures of another size, as Pillow's `Image.resize` computes them: along the rows and along the columns, each time
//! from bytes to bytes, with weights of 22 binary places. So it gives Pillow's bytes.
//!
//! Source: Pillow 13, `src/libImaging/Resample.c`. Before 13, rows always came first.

use std::f64::consts::PI;

/// How much the pixels around a place count for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Pillow's `LANCZOS`: a windowed sinc with three lobes to each side.
    Lanczos,
    /// Pillow's `BICUBIC`: cubic splines with a slope of -0.5.
    Bicubic,
}

impl Filter {
    /// How far it reaches to each side, in pixels.
    fn reach(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const SLOPE: f64 = -0.5;
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { libm::sin(x * PI) / (x * PI) };
        match (self, x.abs()) {
            (Self::Lanczos, _) if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            (Self::Bicubic, x) if x < 1.0 => ((SLOPE + 2.0) * x - (SLOPE + 3.0)) * x * x + 1.0,
            (Self::Bicubic, x) if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * SLOPE,
            _ => 0.0,
        }
    }
}

/// Binary places of a weight.
const PLACES: u32 = 22;

/// RGB pixels of one size as those of another; sizes are `[width, height]`.
pub fn resize(filter: Filter, rgb: &[u8], [width, height]: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    // What loses so much more rows than columns is less work that way.
    let rows_lost = height.saturating_sub(to[1]);
    if rows_lost > 2 * width.saturating_sub(to[0]) {
        return along_rows(filter, &along_columns(filter, rgb, width, height, to[1]), width, to[0]);
    }
    along_columns(filter, &along_rows(filter, rgb, width, to[0]), to[0], height, to[1])
}

/// Rows of another length.
fn along_rows(filter: Filter, rgb: &[u8], width: usize, to: usize) -> Vec<u8> {
    let taps = taps(filter, width, to);
    let pixels = rgb.chunks_exact(3 * width).flat_map(|row| taps.iter().map(move |taps| (row, taps)));
    pixels.flat_map(|(row, taps)| [0, 1, 2].map(|c| taps.sum(|x| row[3 * x + c]))).collect()
}

/// Another number of rows, of `width` pixels each.
fn along_columns(filter: Filter, rgb: &[u8], width: usize, height: usize, to: usize) -> Vec<u8> {
    let (taps, row) = (taps(filter, height, to), 3 * width);
    taps.iter().flat_map(|taps| (0..row).map(move |at| taps.sum(|y| rgb[y * row + at]))).collect()
}

/// What one pixel of a row (or column) is made of.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

impl Taps {
    fn sum(&self, pixel: impl Fn(usize) -> u8) -> u8 {
        let products = (self.first..).zip(&self.weights).map(|(at, weight)| i64::from(pixel(at)) * weight);
        ((products.sum::<i64>() + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
    }
}

/// For every pixel of a row of `to` what it is made of in one of `from`; the same pixel where both are of one length.
fn taps(filter: Filter, from: usize, to: usize) -> Vec<Taps> {
    if from == to {
        return (0..to).map(|first| Taps { first, weights: vec![1 << PLACES] }).collect();
    }
    let scale = from as f64 / to as f64;
    // A smaller picture is filtered so wide that every pixel of the larger one counts.
    let stretch = scale.max(1.0);
    let reach = filter.reach() * stretch;
    let taps = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        // A float below zero becomes 0.
        let (first, end) = ((centre - reach + 0.5) as usize, ((centre + reach + 0.5) as usize).min(from));
        let weights: Vec<f64> = (first..end).map(|x| filter.at((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1u32 << PLACES)).round() as i64;
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(taps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: usize, height: usize) -> Vec<u8> {
        (0..3 * width * height).map(|i| (i * i * 7 % 256) as u8).collect()
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let rgb = pattern(5, 4);
        assert_eq!(resize(Filter::Lanczos, &rgb, [5, 4], [5, 4]), rgb);
    }

    #[test]
    fn one_colour_stays_that_colour() {
        let rgb = [10, 200, 255].repeat(7 * 5);
        for filter in [Filter::Lanczos, Filter::Bicubic] {
            for to in [[3, 2], [20, 11], [7, 9], [1, 1]] {
                assert_eq!(resize(filter, &rgb, [7, 5], to), [10, 200, 255].repeat(to[0] * to[1]), "{filter:?} {to:?}");
            }
        }
    }
}
