//! Pictures of every kind that people have, read as Pillow and diffusers read them (`data/make_pictures.py` wrote files
//! and pixels), and written so that they are read back.

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::{Format, Picture, decode};
use ornstein::tensor::Tensor;
use ornstein::weights::read_tensors;

use crate::networks::data;
use crate::support::{ensure, test};

/// What made a picture, in letters beyond Latin-1: as the script has it.
const PARAMETERS: &str = "a café, 日本\nSteps: 4";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("pictures::parameters_are_found_in_exif", parameters),
        test("pictures::what_is_written_is_read_back", written),
        test("pictures::exif_of_any_bytes_is_read_or_left", any_exif),
    ];
    for (name, (_, wanted)) in read_tensors(&data("pictures/expected.safetensors")).expect("pictures can be read") {
        trials.push(test(format!("pictures::{name}"), move || same(&name, &wanted)));
    }
    trials
}

fn read(name: &str) -> Result<Picture, Failed> {
    Ok(decode(name, &std::fs::read(data("pictures").join(name))?)?)
}

/// Of lossless formats the very bytes; of JPEG what another decoder's rounding leaves.
fn same(name: &str, wanted: &Tensor) -> Result<(), Failed> {
    let picture = read(name)?;
    let size = [picture.height, picture.width, 3];
    ensure(wanted.shape.dims() == size, format!("{size:?} instead of {}", wanted.shape))?;
    let most = if name.ends_with("jpg") { 4.0 } else { 0.0 };
    let far = |(found, wanted): (&u8, &f32)| (f32::from(*found) - wanted).abs() > most;
    let wrong = picture.rgb.iter().zip(&wanted.data).filter(|pair| far(*pair)).count();
    ensure(wrong == 0, format!("{wrong} of {} values differ by more than {most}", picture.rgb.len()))
}

fn parameters() -> Result<(), Failed> {
    for name in ["parameters.jpg", "parameters.webp"] {
        let found = read(name)?.parameters;
        ensure(found.as_deref() == Some(PARAMETERS), format!("{name}: {found:?}"))?;
    }
    ensure(read("turned-6.jpg")?.parameters.is_none(), "a picture without them has some")
}

fn written() -> Result<(), Failed> {
    for parameters in [None, Some(PARAMETERS.to_string()), Some("plain\nSteps: 1".into())] {
        let picture = Picture { parameters, ..read("rgb.png")? };
        for format in [Format::Png, Format::Jpeg, Format::WebP] {
            let found = decode("written", &picture.to_file(format)?)?;
            ensure(found.parameters == picture.parameters, format!("{format:?}: {:?}", found.parameters))?;
            let worst = found.rgb.iter().zip(&picture.rgb).map(|(a, b)| a.abs_diff(*b)).max();
            // JPEG keeps colours in blocks of 2x2.
            let most = if format == Format::Jpeg { 60 } else { 0 };
            ensure(worst <= Some(most), format!("{format:?} is {worst:?} apart"))?;
        }
    }
    let empty = Picture { width: 0, height: 3, rgb: Vec::new(), parameters: None };
    ensure([Format::Png, Format::Jpeg, Format::WebP].into_iter().all(|format| empty.to_file(format).is_err()), "empty")
}

/// A block of EXIF with any one byte changed, or cut off anywhere.
fn any_exif() -> Result<(), Failed> {
    let file = std::fs::read(data("pictures/parameters.jpg"))?;
    let begin = file.windows(4).position(|bytes| bytes == b"Exif").ok_or("there is no EXIF")?;
    for at in begin..begin + 90 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = file.clone();
            changed[at] = value;
            let _ = decode("changed", &changed);
        }
        let _ = decode("cut", &file[..at]);
    }
    Ok(())
}
