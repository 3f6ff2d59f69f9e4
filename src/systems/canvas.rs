//! What a system draws on: the request's picture, of which a mask or an extension says what is drawn anew.

use super::request::Request;
use super::settings::Settings;
use crate::error::{Error, Field, Message, Remedy, Result};
use crate::image::{Mask, Patch, Picture, Region};
use crate::samplers::Portion;

/// A picture at the size at which it is drawn.
pub(super) struct Canvas {
    pub picture: Picture,
    /// What of it is drawn anew, each pixel or not; without it everything.
    pub mask: Option<Mask>,
    /// Where what is drawn is put, if it is not the whole picture that is made.
    pub patch: Option<Patch>,
}

/// The most pixels of a picture that is extended, or resized: its bytes fit a machine.
const MOST_PIXELS: usize = 1 << 28;

/// The largest deviation of a mask's edge, in pixels.
const MOST_BLUR: f32 = 1000.0;

/// Whether only a part of the request's picture is drawn anew.
pub(super) fn is_masked(request: &Request) -> bool {
    request.mask.is_some() || request.extend.is_some()
}

/// Checks what a request says of its picture.
///
/// # Errors
/// If it makes no sense, or there is no picture.
pub(super) fn check(request: &Request) -> Result<()> {
    let given = request.given().collect::<Vec<_>>();
    let masks = [Field::Mask, Field::Extend];
    let missing = |field, give: &[Field]| {
        let remedies = give.iter().map(|field| Remedy::Give(*field));
        Err(Error::usage("is for a part of a picture").of(field).remedies(remedies))
    };
    for field in [Field::MaskBlur, Field::InpaintFullRes] {
        if given.contains(&field) && !masks.iter().any(|mask| given.contains(mask)) {
            return missing(field, &masks);
        }
    }
    if request.mask_invert && request.mask.is_none() {
        return missing(Field::MaskInvert, &[Field::Mask]);
    }
    if let Some(field) = masks.into_iter().find(|mask| given.contains(mask))
        && request.init_image.is_none()
    {
        return missing(field, &[Field::InitImage]);
    }
    if let Some(blur) = request.mask_blur.filter(|blur| !(0.0..=MOST_BLUR).contains(blur)) {
        return Err(Error::usage(format!("{blur} does not lie from 0 to {MOST_BLUR}")).of(Field::MaskBlur));
    }
    if let Some(sides) = request.extend {
        const MOST: usize = 1 << 14;
        let [left, top, right, bottom] = sides;
        let error = |why: &str| Error::usage(format!("{left},{top},{right},{bottom} {why}")).of(Field::Extend);
        if sides == [0; 4] {
            return Err(error("adds nothing: give the pixels to the left, above, to the right and below"));
        }
        if sides.iter().any(|side| *side > MOST) {
            return Err(error(&format!("is more than {MOST} pixels to a side")));
        }
        let of = |picture: &Picture| (left + picture.width + right) * (top + picture.height + bottom);
        if request.init_image.as_ref().is_some_and(|picture| of(picture) > MOST_PIXELS) {
            return Err(error("makes a picture that is too large"));
        }
    }
    match whole(request) {
        Some((_, Some(mask))) if mask.grey.iter().all(|value| *value < 128) => {
            let error = Error::usage("has no white, so nothing would be drawn anew").of(Field::Mask);
            let invert = Field::MaskInvert;
            let turned = if request.mask_invert { Remedy::Without(invert) } else { Remedy::Give(invert) };
            Err(error.remedies([Remedy::Other(Field::Mask), turned]))
        }
        _ => Ok(()),
    }
}

/// What is to be said of a mask of another aspect than its picture's, and of a picture of another than what is drawn.
pub(super) fn stretched(request: &Request, settings: &Settings) -> Vec<Message> {
    let Settings { width, height, portion, .. } = *settings;
    let Some(picture) = &request.init_image else { return Vec::new() };
    let [left, top, right, bottom] = request.extend.unwrap_or_default();
    let own = [picture.width, picture.height];
    let whole = [left + own[0] + right, top + own[1] + bottom];
    let told = |what: &str, of: [usize; 2], onto: &str, to: [usize; 2]| {
        // By more than a few pixels of the smaller.
        let differs = (of[0] * to[1]).abs_diff(of[1] * to[0]) > 8 * to[0].max(to[1]).max(of[0]).max(of[1]);
        let [of, to] = [of, to].map(|[width, height]| format!("{width}x{height}"));
        differs.then(|| format!("{what}, {of} pixels, is stretched over {onto} {to}").into())
    };
    let mask = request.mask.as_ref().map(|mask| [mask.width, mask.height]);
    let mask = mask.and_then(|mask| told("the mask", mask, "the picture's", own));
    // A region of it keeps its aspect, and what is not started from may be looked at in parts.
    let is_stretched = request.inpaint_full_res.is_none() && matches!(portion, Portion::Last(_));
    let drawn = is_stretched.then(|| told("the picture", whole, "the", [width, height]));
    // What is asked for in pixels is not rounded without a word.
    let is_rounded = is_stretched && request.extend.is_some() && whole != [width, height];
    let [asked, made] = [whole, [width, height]].map(|[width, height]| format!("{width}x{height}"));
    let rounded = || format!("the extended picture, {asked} pixels, is drawn at {made}").into();
    mask.into_iter().chain(drawn.flatten().or_else(|| is_rounded.then(rounded))).collect()
}

/// Height and width at which the request's picture is drawn, where it decides that: multiples of `factor`.
///
/// # Errors
/// If it is smaller than that, and the request does not say another size.
pub(super) fn size(request: &Request, factor: usize) -> Result<Option<[usize; 2]>> {
    // A region of it is drawn at the model's own size.
    let picture = request.init_image.as_ref().filter(|_| request.inpaint_full_res.is_none());
    let Some(Picture { width, height, .. }) = picture else { return Ok(None) };
    let [left, top, right, bottom] = request.extend.unwrap_or_default();
    let size = [top + height + bottom, left + width + right].map(|side| side / factor * factor);
    let decides = size.iter().zip([request.height, request.width]).any(|(side, given)| *side == 0 && given.is_none());
    if decides {
        let what = format!("has {width}x{height} pixels, expected at least {factor}x{factor}");
        let error = Error::usage(what).of(Field::InitImage);
        return Err(error.remedies([Remedy::Give(Field::Width), Remedy::Give(Field::Height)]));
    }
    Ok(Some(size))
}

/// The request's picture with its extension, and what of that is drawn anew: more or less.
fn whole(request: &Request) -> Option<(Picture, Option<Mask>)> {
    let picture = request.init_image.as_ref()?;
    let size = [picture.width, picture.height];
    let mask = request.mask.as_ref().map(|mask| {
        let mask = Mask::of(mask).resized(size);
        if request.mask_invert { mask.inverted() } else { mask }
    });
    Some(match request.extend {
        None => (picture.clone(), mask),
        Some(sides) => {
            let mask = mask.unwrap_or_else(|| Mask::none(size));
            (picture.extended(sides), Some(mask.extended(sides)))
        }
    })
}

/// What a guiding picture shows of what is drawn at this height and width: all of it or, where a region of the
/// request's picture is drawn alone, the same region.
///
/// # Errors
/// As [`Canvas::of`].
pub(super) fn guiding(request: &Request, picture: &Picture, [height, width]: [usize; 2]) -> Result<Picture> {
    match Canvas::of(request, [height, width])?.and_then(|canvas| canvas.patch) {
        Some(Patch { given, region, .. }) if request.inpaint_full_res.is_some() => {
            Ok(picture.at_size([given.width, given.height]).fitted(region, [width, height]))
        }
        _ => Ok(picture.at_size([width, height])),
    }
}

impl Canvas {
    /// Of a request's picture at this height and width; `None` without one.
    ///
    /// # Errors
    /// If nothing of it is drawn anew, or so many pixels fit no machine.
    pub fn of(request: &Request, [height, width]: [usize; 2]) -> Result<Option<Self>> {
        let Some((picture, mask)) = whole(request) else { return Ok(None) };
        if width.saturating_mul(height) > MOST_PIXELS {
            let error = Error::usage(format!("{width}x{height} pixels are too many to start from a picture"));
            return Err(error.remedies([Remedy::Less(Field::Width), Remedy::Less(Field::Height)]));
        }
        let to = [width, height];
        let Some(mask) = mask else {
            return Ok(Some(Self { picture: picture.at_size(to), mask: None, patch: None }));
        };
        let mask = match request.mask_blur {
            Some(deviation) => mask.blurred(deviation),
            None => mask,
        };
        if mask.grey.iter().all(|value| *value < 128) {
            let what = format!("{} leaves nothing of the mask that is white", request.mask_blur.unwrap_or_default());
            return Err(Error::usage(what).of(Field::MaskBlur).remedies([Remedy::Less(Field::MaskBlur)]));
        }
        if let Some(padding) = request.inpaint_full_res {
            let nothing = || Error::usage("has no white, so nothing would be drawn anew").of(Field::Mask);
            let region = mask.region(padding, to).ok_or_else(nothing)?;
            let (drawn, hard) = (picture.fitted(region, to), mask.clone().fitted(region, to).hard());
            return Ok(Some(Self {
                picture: drawn,
                mask: Some(hard),
                patch: Some(Patch { given: picture, mask, region }),
            }));
        }
        let (drawn, hard) = (picture.at_size(to), mask.clone().resized(to).hard());
        // Without a word on the edge, what is kept comes from the decoder, as diffusers leaves it.
        let patch = request.mask_blur.map(|_| {
            let is_sized = request.width.is_some() || request.height.is_some();
            let given = if is_sized { drawn.clone() } else { picture };
            let size = [given.width, given.height];
            let region = Region { left: 0, top: 0, width: given.width, height: given.height };
            Patch { given, mask: mask.resized(size), region }
        });
        Ok(Some(Self { picture: drawn, mask: Some(hard), patch }))
    }
}
