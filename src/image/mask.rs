//! Which part of a picture is drawn anew, and how what was drawn is put back.
//!
//! Source: diffusers `VaeImageProcessor`: `get_crop_region`, `_resize_and_fill`, `_resize_and_crop`, `apply_overlay`.

use super::Picture;
use super::blur::blur;

/// How much of each pixel of a picture is drawn anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top: 255 is drawn anew, 0 is kept.
    pub grey: Vec<u8>,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its first column.
    pub left: usize,
    /// Its first row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Mask {
    /// A picture's brightness, as Pillow's `convert("L")` has it.
    pub fn of(picture: &Picture) -> Self {
        let grey = |rgb: &[u8]| {
            let sum: u32 = rgb.iter().zip([19595, 38470, 7471]).map(|(byte, weight)| u32::from(*byte) * weight).sum();
            ((sum + 0x8000) >> 16) as u8
        };
        let Picture { width, height, .. } = *picture;
        Self { width, height, grey: picture.rgb.chunks_exact(3).map(grey).collect() }
    }

    /// Of a picture of this width and height that is kept as a whole.
    pub fn none([width, height]: [usize; 2]) -> Self {
        Self { width, height, grey: vec![0; width * height] }
    }

    /// What is drawn anew and what is kept, the other way round.
    pub fn inverted(mut self) -> Self {
        self.grey.iter_mut().for_each(|value| *value = 255 - *value);
        self
    }

    /// Its edge faded by a Gaussian of this deviation in pixels, which is finite and not negative.
    pub fn blurred(self, deviation: f32) -> Self {
        Self { grey: blur(&self.grey, self.width, deviation), ..self }
    }

    /// For a picture of this width and height.
    pub fn resized(self, to: [usize; 2]) -> Self {
        if [self.width, self.height] == to {
            return self;
        }
        self.through_picture(|picture| picture.at_size(to), to)
    }

    /// Each pixel either drawn anew or kept, as diffusers binarizes masks.
    pub fn hard(mut self) -> Self {
        self.grey.iter_mut().for_each(|value| *value = if *value < 128 { 0 } else { 255 });
        self
    }

    /// For a picture that got wider or higher: what is new of it is drawn.
    pub fn extended(&self, [left, top, right, bottom]: [usize; 4]) -> Self {
        let (width, height) = (left + self.width + right, top + self.height + bottom);
        let mut grey = vec![255; width * height];
        for (y, row) in self.grey.chunks_exact(self.width).enumerate() {
            grey[(top + y) * width + left..][..self.width].copy_from_slice(row);
        }
        Self { width, height, grey }
    }

    /// What is drawn anew of it, with `padding` pixels around and, as far as the picture goes, of the aspect of this
    /// width and height; `None` if nothing is.
    pub fn region(&self, padding: usize, [width, height]: [usize; 2]) -> Option<Region> {
        let row = |y: &usize| self.grey[y * self.width..][..self.width].iter().any(|value| *value > 0);
        let column = |x: &usize| self.grey.iter().skip(*x).step_by(self.width).any(|value| *value > 0);
        let ends = |first: usize, last: usize, most: usize| {
            [first.saturating_sub(padding), last.saturating_add(1 + padding).min(most)]
        };
        let x = ends((0..self.width).find(column)?, (0..self.width).rev().find(column)?, self.width);
        let y = ends((0..self.height).find(row)?, (0..self.height).rev().find(row)?, self.height);
        let ratio = width as f64 / height as f64;
        let [wide, high] = [x, y].map(|[first, end]| (end - first) as f64);
        let (x, y) = if wide / high > ratio {
            (x, grown(y, (wide / ratio) as usize, self.height))
        } else {
            (grown(x, (high * ratio) as usize, self.width), y)
        };
        Some(Region { left: x[0], top: y[0], width: x[1] - x[0], height: y[1] - y[0] })
    }

    /// A part of it for a picture of this width and height, as [`Picture::fitted`] makes that.
    pub fn fitted(self, region: Region, to: [usize; 2]) -> Self {
        self.through_picture(|picture| picture.fitted(region, to), to)
    }

    fn through_picture(self, change: impl Fn(Picture) -> Picture, [width, height]: [usize; 2]) -> Self {
        let rgb = self.grey.iter().flat_map(|value| [*value; 3]).collect();
        let picture = change(Picture { width: self.width, height: self.height, rgb, parameters: None });
        Self { width, height, grey: picture.rgb.into_iter().step_by(3).collect() }
    }
}

/// The ends of a part that is at least this long, around the same middle, of something that is `most` long.
fn grown([first, end]: [usize; 2], length: usize, most: usize) -> [usize; 2] {
    let more = length.saturating_sub(end - first);
    let (first, end) = (first as isize - (more / 2) as isize, end + more - more / 2);
    let over = end.saturating_sub(most);
    let (first, end) = (first - over as isize, end - over);
    let under = first.min(0).unsigned_abs();
    [first.max(0) as usize, (end + under).min(most)]
}

impl Picture {
    /// The part of it that begins there; outside of it, its edges go on.
    pub fn window(&self, [left, top]: [isize; 2], [width, height]: [usize; 2]) -> Self {
        let nearest = |at: usize, first: isize, most: usize| (at as isize + first).clamp(0, most as isize - 1) as usize;
        let mut rgb = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            let row = &self.rgb[3 * self.width * nearest(y, top, self.height)..][..3 * self.width];
            (0..width).for_each(|x| rgb.extend_from_slice(&row[3 * nearest(x, left, self.width)..][..3]));
        }
        Self { width, height, rgb, parameters: None }
    }

    /// A picture with so many pixels more to the left, above, to the right and below.
    pub fn extended(&self, [left, top, right, bottom]: [usize; 4]) -> Self {
        let size = [left + self.width + right, top + self.height + bottom];
        self.window([left, top].map(|side| -(side as isize)), size)
    }

    /// A part of it at this width and height: resized as a whole, and where its aspect is another its edges go on, as
    /// Pillow resizes a part without pixels.
    pub fn fitted(&self, Region { left, top, width, height }: Region, to: [usize; 2]) -> Self {
        let part = self.window([left as isize, top as isize], [width, height]);
        let is_higher = to[0] * height < width * to[1];
        let whole = if is_higher { [to[0], height * to[0] / width] } else { [width * to[1] / height, to[1]] };
        let resized = part.at_size(whole.map(|side| side.max(1)));
        let [left, top] = middle(whole, to);
        let pixels = (0..to[1] as isize).flat_map(|y| (0..to[0] as isize).map(move |x| [x + left, y + top]));
        let rgb = pixels.flat_map(|at| resized.beyond(at)).collect();
        Self { width: to[0], height: to[1], rgb, parameters: None }
    }

    /// A pixel there or, outside of the picture, what its edge would become if it went on.
    fn beyond(&self, at: [isize; 2]) -> [u8; 3] {
        let most = [self.width, self.height].map(|side| side as isize - 1);
        let nearest = [0, 1].map(|axis| at[axis].clamp(0, most[axis]));
        let inner = [0, 1].map(|axis| (nearest[axis] + (nearest[axis] - at[axis]).signum()).clamp(0, most[axis]));
        let pixel = |[x, y]: [isize; 2]| &self.rgb[3 * (y as usize * self.width + x as usize)..][..3];
        let (edge, inner) = (pixel(nearest), pixel(inner));
        [0, 1, 2].map(|c| ((9 * i32::from(edge[c]) - i32::from(inner[c]) + 4) >> 3).clamp(0, 255) as u8)
    }

    /// The middle of it at this width and height, as much as that aspect leaves.
    fn covering(&self, to: [usize; 2]) -> Self {
        let is_wider = to[0] * self.height > self.width * to[1];
        let own = [self.width, self.height];
        let whole = if is_wider { [to[0], own[1] * to[0] / own[0]] } else { [own[0] * to[1] / own[1], to[1]] };
        self.at_size(whole.map(|side| side.max(1))).window(middle(whole, to), to)
    }
}

/// Where the middle of one size begins, of another.
fn middle(of: [usize; 2], size: [usize; 2]) -> [isize; 2] {
    [0, 1].map(|axis| (of[axis] / 2) as isize - (size[axis] / 2) as isize)
}

/// A picture into which what was drawn of it is put back.
#[derive(Debug, Clone)]
pub struct Patch {
    /// The picture as it was.
    pub given: Picture,
    /// Which part of it was drawn anew.
    pub mask: Mask,
    /// Where that is.
    pub region: Region,
}

impl Patch {
    /// The whole picture, with what was drawn of its region.
    pub fn put(&self, drawn: &Picture) -> Picture {
        let Region { left, top, width, height } = self.region;
        // The whole was stretched to what was drawn, a region was cut to its aspect.
        let is_whole = [width, height] == [self.given.width, self.given.height];
        let part = if is_whole { drawn.at_size([width, height]) } else { drawn.covering([width, height]) };
        let mut rgb = self.given.rgb.clone();
        for y in 0..height {
            let first = (top + y) * self.given.width + left;
            let mask = &self.mask.grey[first..][..width];
            let new = part.rgb[3 * y * width..][..3 * width].chunks_exact(3);
            let old = rgb[3 * first..][..3 * width].chunks_exact_mut(3);
            for ((old, new), share) in old.zip(new).zip(mask) {
                let share = u32::from(*share);
                let mixed = |old: u8, new: u8| (u32::from(new) * share + u32::from(old) * (255 - share) + 127) / 255;
                old.iter_mut().zip(new).for_each(|(old, new)| *old = mixed(*old, *new) as u8);
            }
        }
        Picture { rgb, parameters: drawn.parameters.clone(), ..self.given }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: usize, height: usize, drawn: &[[usize; 2]]) -> Mask {
        let mut mask = Mask::none([width, height]);
        drawn.iter().for_each(|[x, y]| mask.grey[y * width + x] = 255);
        mask
    }

    #[test]
    fn a_region_grows_to_the_aspect_as_far_as_the_picture_goes() {
        let region = |left, top, width, height| Some(Region { left, top, width, height });
        let row = mask(20, 10, &[[4, 5], [9, 5]]);
        assert_eq!(row.region(0, [64, 64]), region(4, 3, 6, 6));
        assert_eq!(row.region(2, [64, 64]), region(2, 0, 10, 10));
        assert_eq!(row.region(0, [10, 30]), region(4, 0, 6, 10));
        assert_eq!(mask(20, 10, &[[19, 9]]).region(1, [8, 2]), region(12, 8, 8, 2));
        assert_eq!(mask(20, 10, &[]).region(3, [8, 2]), None);
    }

    #[test]
    fn what_is_not_drawn_anew_stays_as_it_was_to_the_bit() {
        let given = Picture { width: 4, height: 2, rgb: (0..24).collect(), parameters: None };
        let mut soft = mask(4, 2, &[[1, 0]]);
        soft.grey[2] = 128;
        let drawn = Picture { width: 2, height: 2, rgb: vec![200; 12], parameters: Some("p".into()) };
        let patch = Patch { given, mask: soft, region: Region { left: 1, top: 0, width: 2, height: 2 } };
        let Picture { rgb, parameters, .. } = patch.put(&drawn);
        assert_eq!(rgb[..12], [0, 1, 2, 200, 200, 200, 103, 104, 104, 9, 10, 11]);
        assert_eq!((rgb[12..].to_vec(), parameters), ((12..24).collect(), Some("p".into())));
    }

    #[test]
    fn what_a_picture_is_extended_by_goes_on_from_its_edge_and_is_drawn() {
        let picture = Picture { width: 2, height: 1, rgb: vec![1, 1, 1, 2, 2, 2], parameters: None };
        let wider = picture.extended([1, 1, 2, 0]);
        let row = [[1; 3], [1; 3], [2; 3], [2; 3], [2; 3]].concat();
        assert_eq!((wider.width, wider.height, wider.rgb), (5, 2, row.repeat(2)));
        let mask = Mask::none([2, 1]).extended([1, 1, 2, 0]);
        assert_eq!(mask.grey, [255, 255, 255, 255, 255, 255, 0, 0, 255, 255]);
    }
}
