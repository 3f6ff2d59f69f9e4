//! Files that cannot be used as LoRAs of a model: what is said of them.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::rng::Generator;
use ornstein::tensor::{Shape, Tensor, Weights};
use ornstein::weights::{Changes, Model, write_tensors};

use super::{file, lora};
use crate::checkpoints::kept::Kept;
use crate::support::{ensure, test};

/// A convolution `[32, 4, 3, 3]` of the built-in model's UNet.
const CONV: &str = "lora_unet_conv_in";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    type Run = fn() -> Result<(), Failed>;
    let tests: [(&str, Run); 14] = [
        ("tensors_that_the_model_does_not_have_are_listed_up_to_ten", unknown_modules),
        ("tensors_that_are_no_part_of_a_lora_are_listed", unknown_parts),
        ("a_naming_that_is_not_known_shows_two_names", unknown_naming),
        ("a_file_for_another_family_is_refused", other_families),
        ("factors_that_do_not_fit_are_named_with_their_shapes", misfits),
        ("a_change_that_lacks_a_part_is_named", incomplete),
        ("an_alpha_that_is_no_number_is_named", alphas),
        ("lengths_that_do_not_fit_are_named", lengths),
        ("one_tensor_under_two_names_is_refused", twice),
        ("values_that_are_not_finite_name_the_file", not_finite),
        ("a_file_that_is_no_lora_says_what_it_has", no_lora),
        ("a_pickle_says_why_and_how_to_convert", pickle),
        ("a_configuration_that_cannot_be_understood_is_named", configurations),
        ("parts_of_any_shapes_are_used_or_refused", any_shapes),
    ];
    tests.into_iter().map(|(name, run)| test(format!("lora::{name}"), run)).collect()
}

/// Why the built-in model does not take a file with these tensors, each of this value.
fn message(tensors: &[(&str, &[usize])], value: f32) -> String {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let path = folder.path().join("odd.safetensors");
    let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, dims)| (*name, filled(dims, value))).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    write_tensors(&path, &tensors).expect("a file for a test");
    said(&path)
}

fn filled(dims: &[usize], value: f32) -> Tensor {
    let shape = Shape::new(dims);
    let data = vec![value; shape.len()];
    Tensor::new(shape, data)
}

fn said(path: &Path) -> String {
    let changes = lora(path, 1.0).and_then(|lora| Changes::of(&Model::builtin(), &[lora]));
    let text = changes.expect_err("an error").to_string();
    assert!(text.starts_with(path.to_str().expect("a name in UTF-8")) && !text.contains('\n'), "{text}");
    text
}

fn has(text: String, parts: &[&str]) -> Result<(), Failed> {
    ensure(parts.iter().all(|part| text.contains(part)), text)
}

fn unknown_modules() -> Result<(), Failed> {
    let names: Vec<String> = (10..22).map(|i| format!("lora_unet_gate_{i}.lora_up.weight")).collect();
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[2, 2][..])).collect();
    let wanted = [
        "was not made for shapes: it has nothing that these tensors change: lora_unet_gate_10.lora_up.weight, ",
        " and 2 more",
    ];
    has(message(&tensors, 1.0), &wanted)
}

fn unknown_naming() -> Result<(), Failed> {
    let names: Vec<String> = (10..22).map(|i| format!("painter.{i}.lora_up.weight")).collect();
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[2, 2][..])).collect();
    let text = message(&tensors, 1.0);
    ensure(!text.contains("another family") && !text.contains("painter.12"), text.as_str())?;
    has(text, &["names its modules in a way that is not known, as painter.10 and painter.11"])
}

fn unknown_parts() -> Result<(), Failed> {
    let down = format!("{CONV}.lora_down.weight");
    for name in ["unet.conv_in.lora_B.bias", "lora_unet_conv_in.diff_c", "lora_unet_conv_in.oft_r"] {
        let text = message(&[(&down, &[2, 4, 3, 3]), (name, &[2])], 1.0);
        has(text, &["has tensors that are not part of a LoRA", name])?;
    }
    Ok(())
}

fn other_families() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = Kept::of("sd1")?.write_folder(folder.path())?;
    let said = |model: &Model, name: &str| -> Result<String, Failed> {
        Ok(Changes::of(model, &[lora(&file(name), 1.0)?]).err().ok_or("it fits")?.to_string())
    };
    let end = |text: &str| format!("and {} is {text}; give one for its family", model.name());
    for name in ["kohya-sdxl", "peft-sdxl"] {
        let wanted = format!("{name}.safetensors: was made for Stable Diffusion XL, {}", end("Stable Diffusion 1"));
        ensure(said(&model, name)?.ends_with(&wanted), said(&model, name)?)?;
    }
    has(said(&model, "kohya-sd2")?, &["kohya-sd2", "was not made for", "for a tensor ["])?;
    let sdxl = tempfile::tempdir()?;
    let sdxl = Kept::of("sdxl")?.write_folder(sdxl.path())?;
    has(said(&sdxl, "kohya")?, &["was made for Stable Diffusion 1 or 2, and", "is Stable Diffusion XL; give one"])
}

fn misfits() -> Result<(), Failed> {
    let name = |part: &str| format!("{CONV}.{part}");
    let (down, up, mid) = (name("lora_down.weight"), name("lora_up.weight"), name("lora_mid.weight"));
    let wrong = message(&[(&down, &[2, 5, 3, 3]), (&up, &[32, 2, 1, 1])], 1.0);
    has(wrong, &["these changes cannot be made: lora_unet_conv_in: [32, 45] for a tensor [32, 4, 3, 3]"])?;
    let wrong = message(&[(&down, &[2, 4, 3, 3]), (&up, &[32, 3, 1, 1])], 1.0);
    has(wrong, &["lora_up.weight [32, 3, 1, 1] with lora_unet_conv_in.lora_down.weight [2, 4, 3, 3]"])?;
    let wrong = message(&[(&down, &[2, 4, 1, 1]), (&up, &[32, 2, 1, 1]), (&mid, &[2, 3, 3, 3])], 1.0);
    has(wrong, &["lora_mid.weight [2, 3, 3, 3] with"])?;
    let wrong = message(&[(&down, &[0, 4, 3, 3]), (&up, &[32, 0, 1, 1])], 1.0);
    has(wrong, &["lora_up.weight [32, 0, 1, 1]"])?;
    for blocks in [&[4, 8, 7][..], &[3, 8, 8], &[5, 8, 4, 4], &[2, 32, 1, 1], &[0, 32, 4, 4], &[32]] {
        has(message(&[(&name("oft_blocks"), blocks)], 1.0), &["oft_blocks", "for a tensor [32, 4, 3, 3]"])?;
    }
    let rescaled = message(&[(&name("oft_blocks"), &[4, 8, 8]), (&name("rescale"), &[31, 1, 1, 1])], 1.0);
    has(rescaled, &["rescale [31, 1, 1, 1] for a tensor [32, 4, 3, 3]"])?;
    let hada = [name("hada_w1_a"), name("hada_w1_b"), name("hada_w2_a"), name("hada_w2_b")];
    let shapes: [&[usize]; 4] = [&[32, 2], &[2, 36], &[32, 2], &[2, 35]];
    let tensors: Vec<(&str, &[usize])> = hada.iter().map(String::as_str).zip(shapes).collect();
    has(message(&tensors, 1.0), &["[32, 36] times [32, 35]"])?;
    let wrong = message(&[(&name("lokr_w1"), &[4, 2]), (&name("lokr_w2"), &[8, 3, 3, 3])], 1.0);
    has(wrong, &["[32, 54] for a tensor [32, 4, 3, 3]"])
}

fn incomplete() -> Result<(), Failed> {
    for part in ["lora_down.weight", "lora_mid.weight", "hada_w1_a", "lokr_w1", "alpha", "dora_scale"] {
        let name = format!("{CONV}.{part}");
        has(message(&[(&name, &[2, 2])], 1.0), &[&format!("{CONV}: only {name}")])?;
    }
    // Parts of two forms.
    let names = ["lora_down.weight", "lora_up.weight", "lokr_w1"].map(|part| format!("{CONV}.{part}"));
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[2, 2][..])).collect();
    has(message(&tensors, 1.0), &["only ", "lokr_w1"])
}

fn with(part: &str, dims: &[usize], value: f32) -> String {
    let names = ["lora_down.weight", "lora_up.weight", part].map(|part| format!("{CONV}.{part}"));
    message(&[(&names[0], &[2, 4, 3, 3]), (&names[1], &[32, 2, 1, 1]), (&names[2], dims)], value)
}

fn alphas() -> Result<(), Failed> {
    has(with("alpha", &[2], 1.0), &["lora_unet_conv_in.alpha has 2 values, not one"])?;
    has(with("alpha", &[], f32::NAN), &["lora_unet_conv_in.alpha is NaN"])
}

fn lengths() -> Result<(), Failed> {
    has(with("dora_scale", &[7, 1, 1, 1], 1.0), &["dora_scale [7, 1, 1, 1] for a tensor [32, 4, 3, 3]"])?;
    has(with("dora_scale", &[1, 32, 1, 1], 1.0), &["dora_scale [1, 32, 1, 1] for a tensor"])?;
    has(with("lora_magnitude_vector", &[1, 4, 1, 1], 1.0), &["lora_magnitude_vector [1, 4, 1, 1] for a tensor"])?;
    let names = ["lora_down.weight", "lora_up.weight", "dora_scale", "lora_magnitude_vector"];
    let names = names.map(|part| format!("{CONV}.{part}"));
    let shapes: [&[usize]; 4] = [&[2, 4, 3, 3], &[32, 2, 1, 1], &[32, 1, 1, 1], &[32]];
    let tensors: Vec<(&str, &[usize])> = names.iter().map(String::as_str).zip(shapes).collect();
    has(message(&tensors, 1.0), &["both lora_unet_conv_in.dora_scale and lora_unet_conv_in.lora_magnitude_vector"])
}

fn twice() -> Result<(), Failed> {
    let names = [CONV, "lora_unet_input_blocks_0_0"];
    let names = names.map(|module| [format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight")]);
    let tensors: Vec<(&str, &[usize])> = names
        .iter()
        .flat_map(|[down, up]| [(down.as_str(), &[2, 4, 3, 3][..]), (up.as_str(), &[32, 2, 1, 1][..])])
        .collect();
    has(message(&tensors, 1.0), &["unet conv_in.weight twice"])?;
    let tensors: [(&str, &[usize]); 2] =
        [("unet.conv_in.lora_A.weight", &[2, 4, 3, 3]), ("unet.conv_in.lora_A.default.weight", &[2, 4, 3, 3])];
    has(
        message(&tensors, 1.0),
        &["has one part of a module twice: unet.conv_in.lora_A.default.weight and unet.conv_in.lora_A.weight"],
    )
}

fn not_finite() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("nan.safetensors");
    let (down, up) = (filled(&[2, 4, 3, 3], f32::NAN), filled(&[32, 2, 1, 1], 1.0));
    let names = ["lora_down.weight", "lora_up.weight"].map(|part| format!("{CONV}.{part}"));
    write_tensors(&path, &[(&names[0], &down), (&names[1], &up)])?;
    let model = Model::builtin();
    let changes = Changes::of(&model, &[lora(&path, 1.0)?])?;
    let inputs = [("sample", filled(&[1, 4, 8, 8], 0.0)), ("timestep", filled(&[1], 1.0))];
    let inputs = inputs.into_iter().chain([("encoder_hidden_states", filled(&[1, 4, 128], 0.0))]);
    let inputs = inputs.map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let executor = ornstein::network::Executor::Cpu;
    let component = "unet";
    let outputs =
        pollster::block_on(ornstein::forward::forward(&model, &changes, component, inputs, &executor, &mut |_| {}));
    has(outputs.err().ok_or("it ran")?.to_string(), &["nan.safetensors 1: conv_in.weight", "NaN or infinite"])
}

fn no_lora() -> Result<(), Failed> {
    has(
        message(&[("model.diffusion_model.out.0.weight", &[2])], 1.0),
        &["is not a LoRA: it has model.diffusion_model.out"],
    )?;
    has(message(&[], 1.0), &["is not a LoRA: it has no tensors"])?;
    let gone = lora(Path::new("no/such.safetensors"), 1.0).err().ok_or("it is there")?.to_string();
    has(gone, &["no/such.safetensors: no such file"])
}

fn pickle() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    for name in ["a.pt", "a.safetensors"] {
        let path = folder.path().join(name);
        std::fs::write(&path, b"PK\x03\x04\0\0\0\0archive/data.pkl")?;
        has(said(&path), &["can run any code", "safetensors.torch.save_file"])?;
    }
    Ok(())
}

fn configurations() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("odd.safetensors");
    for (config, wanted) in [
        ("[1]", "its metadata lora_adapter_metadata cannot be understood"),
        (r#"{"unet.alpha_pattern":{"conv_(in|out)":3}}"#, "has the alpha_pattern \"conv_(in|out)\""),
    ] {
        let header = serde_json::json!({
            "__metadata__": {"lora_adapter_metadata": config},
            "unet.conv_in.lora_A.weight": {"dtype": "F16", "shape": [1, 36], "data_offsets": [0, 72]},
            "unet.conv_in.lora_B.weight": {"dtype": "F16", "shape": [32, 1], "data_offsets": [72, 136]},
        })
        .to_string();
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 136]].concat())?;
        has(said(&path), &[wanted])?;
    }
    Ok(())
}

/// Two thousand files of parts and shapes by chance, many of which nearly fit: none is a panic, and what is used gives
/// a tensor of the right size.
fn any_shapes() -> Result<(), Failed> {
    const PARTS: [&str; 20] = [
        "alpha",
        "dora_scale",
        "lora_magnitude_vector",
        "lora_down.weight",
        "lora_up.weight",
        "lora_mid.weight",
        "hada_w1_a",
        "hada_w1_b",
        "hada_t1",
        "hada_w2_a",
        "hada_w2_b",
        "hada_t2",
        "lokr_w1",
        "lokr_w1_a",
        "lokr_w1_b",
        "lokr_w2",
        "lokr_w2_a",
        "lokr_w2_b",
        "oft_blocks",
        "rescale",
    ];
    const FORMS: [&[usize]; 5] = [&[3, 4], &[6, 7, 9, 10], &[12, 15], &[13, 14, 16, 17], &[18]];
    const SIZES: [usize; 8] = [0, 1, 2, 2, 4, 8, 32, 36];
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("odd.safetensors");
    let model = Model::builtin();
    let mut used = 0;
    for seed in 0..2000 {
        let mut chance = Generator::new(seed).normal(64).into_iter().map(|x| x.to_bits() as usize >> 3);
        let mut next = |below: usize| chance.next().map_or(0, |bits| bits % below);
        let mut parts = FORMS[next(5)].to_vec();
        (0..next(3)).for_each(|_| parts.push(next(PARTS.len())));
        parts.sort_unstable();
        parts.dedup();
        let shape = |next: &mut dyn FnMut(usize) -> usize| -> Vec<usize> {
            // Most are a factor of the tensor's size.
            match next(5) {
                0 => vec![32, 2],
                1 => vec![2, 36],
                2 => vec![2, 4, 3, 3],
                3 => vec![4, 8, 8],
                _ => (0..next(5)).map(|_| SIZES[next(SIZES.len())]).collect(),
            }
        };
        let shapes: Vec<Vec<usize>> = parts.iter().map(|_| shape(&mut next)).collect();
        let tensors: Vec<Tensor> = shapes.iter().map(|dims| filled(dims, 0.5)).collect();
        let names: Vec<String> = parts.iter().map(|part| format!("{CONV}.{}", PARTS[*part])).collect();
        let tensors: Vec<_> = names.iter().map(String::as_str).zip(&tensors).collect();
        write_tensors(&path, &tensors)?;
        let Ok(changes) = lora(&path, 1.0).and_then(|lora| Changes::of(&model, &[lora])) else { continue };
        let merged = changes.merged("unet", model.weights("unet")?).get("conv_in.weight").map(|raw| raw.to_f32().len());
        ensure(merged == Some(32 * 36), format!("{names:?} {shapes:?} gives {merged:?} values"))?;
        used += 1;
    }
    ensure(used > 20, format!("only {used} were used"))
}
