//! A PNG, as a ControlNet's picture: decoded, with its parameters, and resized.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::image::decode_png;

fuzz_target!(|data: &[u8]| {
    let Ok(picture) = decode_png("input", data) else { return };
    assert_eq!(picture.rgb.len(), 3 * picture.width * picture.height);
    for [width, height] in [[16, 8], [picture.width, 5]] {
        assert_eq!(picture.to_tensor(width, height).data.len(), 3 * width * height);
    }
});
