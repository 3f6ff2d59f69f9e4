//! Pictures in rows and columns with labels.

use std::convert::Infallible;

use embedded_graphics::mono_font::iso_8859_1::{FONT_6X13, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, Size};
use embedded_graphics::text::{Baseline, Text};

use super::Picture;

/// Pictures less wide than this have labels in small letters.
const NARROW: usize = 160;
/// Pixels between pictures, and around labels.
const GAP: usize = 8;
/// Letters of a line beside a row, and lines of a label, at most.
const LETTERS: usize = 24;
const LINES: usize = 4;

/// Pictures row by row, as many to a row as there are `columns`, on white; what has no label has no room for one.
/// Pictures of several sizes stand in the corners of their places.
pub fn sheet(pictures: &[Picture], rows: &[String], columns: &[String]) -> Picture {
    let across = columns.len().max(1);
    let most = |sides: &mut dyn Iterator<Item = usize>| sides.max().unwrap_or(0);
    let widths: Vec<_> =
        (0..across).map(|x| most(&mut pictures.iter().skip(x).step_by(across).map(|p| p.width))).collect();
    let heights: Vec<_> = pictures.chunks(across).map(|row| most(&mut row.iter().map(|p| p.height))).collect();

    let font = if widths.iter().any(|width| *width < NARROW) { &FONT_6X13 } else { &FONT_10X20 };
    let letter = [font.character_size.width as usize, font.character_size.height as usize];
    let above: Vec<_> = columns.iter().zip(&widths).map(|(label, width)| lines(label, width / letter[0])).collect();
    let beside: Vec<_> = rows.iter().map(|label| lines(label, LETTERS)).collect();
    let top = match most(&mut above.iter().map(Vec::len)) * letter[1] {
        0 => 0,
        height => GAP + height,
    };
    let left = match most(&mut beside.iter().flatten().map(|line| line.chars().count())) * letter[0] {
        0 => 0,
        width => GAP + width,
    };
    let places = |first: usize, sides: &[usize]| {
        let next = |at: &mut usize, side: &usize| Some(std::mem::replace(at, *at + side + GAP));
        sides.iter().scan(first + GAP, next).collect::<Vec<_>>()
    };
    let (x, y) = (places(left, &widths), places(top, &heights));
    let size = |first: usize, sides: &[usize]| first + GAP + sides.iter().map(|side| side + GAP).sum::<usize>();
    let (width, height) = (size(left, &widths), size(top, &heights));
    let mut sheet = Picture { width, height, rgb: vec![255; 3 * width * height], parameters: None };
    for (index, picture) in pictures.iter().enumerate() {
        put(&mut sheet, picture, [x[index % across], y[index / across]]);
    }
    for (lines, x) in above.iter().zip(&x) {
        write(&mut sheet, font, lines, [*x, GAP]);
    }
    for (lines, y) in beside.iter().zip(&y) {
        write(&mut sheet, font, lines, [GAP, *y]);
    }
    sheet
}

/// A label in lines of at most so many letters, the last of which says if there would be more.
fn lines(label: &str, letters: usize) -> Vec<String> {
    let letters = letters.max(4);
    let mut lines = vec![String::new()];
    for word in label.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let space = usize::from(!line.is_empty());
            if line.chars().count() + space + word.len() <= letters {
                line.extend([' '].iter().take(space).chain(&word));
                break;
            }
            if space == 0 {
                let rest = word.split_off(letters);
                line.extend(&word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        let last: String = lines[LINES - 1].chars().take(letters - 2).collect();
        lines[LINES - 1] = last + "..";
    }
    lines
}

fn put(sheet: &mut Picture, picture: &Picture, [x, y]: [usize; 2]) {
    for (row, line) in picture.rgb.chunks_exact(3 * picture.width).enumerate() {
        let at = 3 * ((y + row) * sheet.width + x);
        sheet.rgb[at..][..line.len()].copy_from_slice(line);
    }
}

fn write(sheet: &mut Picture, font: &MonoFont<'_>, lines: &[String], [x, y]: [usize; 2]) {
    let style = MonoTextStyle::new(font, Rgb888::BLACK);
    for (index, line) in lines.iter().enumerate() {
        let at = Point::new(x as i32, y as i32 + index as i32 * font.character_size.height as i32);
        // Drawing on a picture cannot fail.
        let Ok(_) = Text::with_baseline(line, at, style, Baseline::Top).draw(sheet);
    }
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let inside = |at: i32, most: usize| usize::try_from(at).ok().filter(|at| *at < most);
            if let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) {
                let rgb = [colour.r(), colour.g(), colour.b()];
                self.rgb[3 * (y * self.width + x)..][..3].copy_from_slice(&rgb);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_in_their_rows_and_columns() {
        let picture = |side: usize, value| Picture {
            width: side,
            height: side,
            rgb: vec![value; 3 * side * side],
            parameters: None,
        };
        let made = sheet(&[picture(2, 1), picture(3, 2), picture(1, 3)], &[], &["".into(), "".into()]);
        assert_eq!((made.width, made.height), (8 + 2 + 8 + 3 + 8, 21 + 8 + 3 + 8 + 1 + 8));
        let at = |x: usize, y: usize| made.rgb[3 * (y * made.width + x)];
        assert_eq!([at(8, 29), at(18, 29), at(20, 31), at(8, 40), at(10, 29)], [1, 2, 2, 3, 255]);
    }

    #[test]
    fn a_label_is_written_in_lines_and_says_if_it_goes_on() {
        assert_eq!(lines("a red circle", 6), ["a red", "circle"]);
        assert_eq!(lines("abcdefgh", 5), ["abcde", "fgh"]);
        assert_eq!(lines("aaaa bbbb cccc dddd eeee", 4), ["aaaa", "bbbb", "cccc", "dd.."]);
        let black = |made: &Picture| made.rgb.iter().filter(|value| **value == 0).count();
        let picture = Picture { width: 40, height: 40, rgb: vec![9; 4800], parameters: None };
        let labelled = sheet(&[picture], &["x".into()], &["euler".into()]);
        assert!(black(&labelled) > 60);
    }
}
