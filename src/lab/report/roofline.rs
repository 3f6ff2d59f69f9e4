//! A roofline plot (Williams, Waterman and Patterson 2009) as SVG: every row at its operations per byte and its rate,
//! below the roof that the measured ceilings make.

use std::fmt::Write as _;

use super::{Device, Row, digits, flop_rate, shapes};
use crate::tensor::DType;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// Left, top, right and bottom of the axes.
const FRAME: [f64; 4] = [70.0, 16.0, 736.0, 356.0];

/// A logarithmic axis: values and where they are drawn.
#[derive(Debug, Clone, Copy)]
struct Axis {
    values: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    /// From the power of ten below the least value to the one above the largest.
    fn over(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| *v > 0.0 && v.is_finite()) {
            (low, high) = (low.min(value.log10().floor()), high.max(value.log10().ceil()));
        }
        if low >= high {
            (low, high) = (0.0, 1.0);
        }
        Self { values: [low, high], pixels }
    }

    fn at(self, value: f64) -> f64 {
        let ([low, high], [from, to]) = (self.values, self.pixels);
        from + (value.max(1e-30).log10().clamp(low, high) - low) / (high - low) * (to - from)
    }

    fn powers(self) -> impl Iterator<Item = f64> {
        (self.values[0] as i32..=self.values[1] as i32).map(|p| 10f64.powi(p))
    }
}

/// The plot of one device's rows, or `None` if none does arithmetic.
pub fn svg(device: &Device, rows: &[&Row]) -> Option<String> {
    let intensity = |row: &Row| row.flops as f64 / row.bytes.max(1) as f64;
    let computing = rows.iter().filter(|row| row.flops > 0);
    let points: Vec<_> = computing.filter_map(|row| Some((*row, intensity(row), row.rates?.gflop_s))).collect();
    let (first, ..) = points.first()?;
    let dtype = if first.dtype == "f16" { DType::F16 } else { DType::F32 };
    let [fma, matrices] = [false, true].map(|matrices| device.ceilings.gflop_s(dtype, matrices));
    // The roof of matrices stands above the other where rows use them.
    let roofs = if points.iter().any(|(row, ..)| row.matrices) { vec![fma, matrices] } else { vec![fma] };
    let (top, copy) = (roofs.iter().copied().fold(0.0, f64::max), device.ceilings.copy_gb_s);
    let [left, upper, right, lower] = FRAME;
    let ridge = top / copy;
    let x = Axis::over(points.iter().map(|p| p.1).chain([ridge / 3.0, ridge * 10.0]), [left, right]);
    let y = Axis::over(points.iter().map(|p| p.2).chain([top]), [lower, upper]);
    let mut out = format!(r#"<svg class="roofline" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="roofline">"#);
    grid(&mut out, x, y);
    // The roof rises with the copy's bytes a second until it meets the arithmetic's ceiling.
    let start = 10f64.powf(x.values[0]).max(10f64.powf(y.values[0]) / copy);
    for top in roofs {
        let ridge = (top / copy).max(start);
        let roof = [(start, (start * copy).min(top)), (ridge, top), (10f64.powf(x.values[1]), top)];
        let corners = roof.map(|(intensity, rate)| format!("{:.1} {:.1}", x.at(intensity), y.at(rate)));
        let _ = write!(out, r#"<path class="roof" d="M{}"/>"#, corners.join("L"));
    }
    for (row, intensity, rate) in points {
        let (cx, cy, hue) = (x.at(intensity), y.at(rate), hue(&row.op));
        let _ =
            write!(out, r#"<circle class="dot" cx="{cx:.1}" cy="{cy:.1}" r="4.5" style="fill:hsl({hue} 62% 52%)">"#);
        let (op, shapes, rate, intensity) = (&row.op, shapes(&row.shapes), flop_rate(rate), digits(intensity));
        let _ = write!(out, "<title>{op} {shapes}: {rate}, {intensity} flop/byte</title></circle>");
    }
    out += "</svg>";
    Some(out)
}

fn grid(out: &mut String, x: Axis, y: Axis) {
    let [left, upper, right, lower] = FRAME;
    for power in x.powers() {
        let at = x.at(power);
        let _ = write!(out, r#"<path class="grid" d="M{at:.1} {upper}V{lower}"/>"#);
        let _ = write!(out, r#"<text x="{at:.1}" y="{}" text-anchor="middle">{power}</text>"#, lower + 16.0);
    }
    for power in y.powers() {
        let at = y.at(power);
        let _ = write!(out, r#"<path class="grid" d="M{left} {at:.1}H{right}"/>"#);
        let _ = write!(out, r#"<text x="{}" y="{:.1}" text-anchor="end">{power}</text>"#, left - 6.0, at + 4.0);
    }
    let (middle, end) = ((left + right) / 2.0, lower + 34.0);
    let _ = write!(out, r#"<text x="{middle}" y="{end}" text-anchor="middle">operations per byte</text>"#);
    let turned = (upper + lower) / 2.0;
    let _ = write!(out, r#"<text transform="translate(16 {turned}) rotate(-90)" text-anchor="middle">GFLOP/s</text>"#);
}

/// An op's colour: neighbours in the table of ops are far apart on the circle.
pub(super) fn hue(op: &str) -> usize {
    let place = crate::ops::TABLE.iter().position(|row| row.name == op).unwrap_or_default();
    place * 137 % 360
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_between_powers_of_ten() {
        let axis = Axis::over([3.0, 200.0].into_iter(), [0.0, 300.0]);
        assert_eq!(axis.values, [0.0, 3.0]);
        assert_eq!([axis.at(1.0), axis.at(10.0), axis.at(1000.0)], [0.0, 100.0, 300.0]);
        assert_eq!(axis.powers().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn what_is_outside_is_drawn_at_the_edge() {
        let axis = Axis::over([1.0, 10.0].into_iter(), [0.0, 100.0]);
        assert_eq!([axis.at(0.0), axis.at(1e9)], [0.0, 100.0]);
    }

    #[test]
    fn an_axis_over_nothing_is_still_an_axis() {
        assert_eq!(Axis::over(std::iter::empty(), [0.0, 1.0]).values, [0.0, 1.0]);
    }
}
