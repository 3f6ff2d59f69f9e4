//! A picture, as an init image or a ControlNet's: decoded, with its parameters, and resized.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::image::decode;

fuzz_target!(|data: &[u8]| {
    let Ok(picture) = decode("input", data) else { return };
    assert_eq!(picture.rgb.len(), 3 * picture.width * picture.height);
    for [width, height] in [[16, 8], [picture.width, 5]] {
        assert_eq!(picture.to_tensor(width, height).data.len(), 3 * width * height);
    }
});
