//! Models written anew: their blocks against the gguf package's (`data/make_gguf.py`), and what the built-in model
//! draws with them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Error;
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::ops::case::compare;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Encoding, Model, convert, read_tensors};

use super::kept::{Kept, write};
use crate::support::{copy_of_the_model, ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("convert::blocks_are_those_of_the_gguf_package", blocks_are_those_of_the_package),
        test("convert::a_folder_draws_what_it_did_but_for_its_encodings_error", folders_draw_what_they_did),
        test("convert::a_checkpoint_is_of_the_same_family_and_smaller", a_checkpoint_stays_what_it_is),
        test("convert::a_file_without_tensors_becomes_one_without_tensors", without_tensors),
        test("convert::what_cannot_be_written_is_refused", what_cannot_be_written_is_refused),
    ]
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/single").join(name)
}

fn blocks_are_those_of_the_package() -> Result<(), Failed> {
    let (folder, theirs) = (tempfile::tempdir()?, read_tensors(&data("quantized.gguf"))?);
    for (encoding, name) in [(Encoding::Q8_0, "q8_0"), (Encoding::Q4_0, "q4_0")] {
        let path = folder.path().join(format!("{name}.gguf"));
        convert(&data("values.safetensors"), &path, encoding)?;
        ensure(read_tensors(&path)?["values"].1 == theirs[name].1, format!("{name} differs"))?;
    }
    Ok(())
}

fn latents(model: Model) -> Result<Tensor, Failed> {
    let request = Request {
        prompt: "a red circle to the left of a blue square".into(),
        steps: Some(4),
        batch: 1,
        seed: 3,
        ..Request::default()
    };
    let (pipeline, cancel) = (Studio::open(model)?, AtomicBool::new(false));
    Ok(pollster::block_on(pipeline.generate(&Executor::Cpu, &request, &cancel, &mut |_| {}))?.latents)
}

/// Bytes of a file, or of all in a folder.
fn size(path: &Path) -> Result<u64, Failed> {
    if !path.is_dir() {
        return Ok(std::fs::metadata(path)?.len());
    }
    std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

fn folders_draw_what_they_did() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = copy_of_the_model(folder.path())?;
    let wanted = latents(Model::open(&model)?)?;
    for (name, encoding, limit) in
        [("f16", Encoding::F16, 1e-3), ("q8_0", Encoding::Q8_0, 3e-2), ("q4_0", Encoding::Q4_0, 0.5)]
    {
        let converted = folder.path().join(name);
        convert(&model, &converted, encoding)?;
        let error = compare(&latents(Model::open(&converted)?)?, &wanted).relative;
        ensure(error < limit, format!("{name}: latents are off by {error:.2e}"))?;
        ensure(encoding == Encoding::F16 || size(&converted)? < size(&model)?, format!("{name} is no smaller"))?;
    }
    Ok(())
}

fn a_checkpoint_stays_what_it_is() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    write(&path, &Kept::of("sd2")?.tensors(), DType::F32, &Default::default())?;
    let family = |path: &Path| -> Result<_, Failed> {
        let found = inspect(&Model::open(path)?)?;
        Ok((found.family, found.prediction, found.unknown))
    };
    for (name, encoding) in [
        ("a.safetensors", Encoding::F16),
        ("a.gguf", Encoding::F16),
        ("b.gguf", Encoding::Q8_0),
        ("c.gguf", Encoding::Q4_0),
    ] {
        let converted = folder.path().join(name);
        convert(&path, &converted, encoding)?;
        ensure(family(&converted)? == family(&path)?, format!("{name} is {:?}", family(&converted)?))?;
        ensure(size(&converted)? < size(&path)?, format!("{name} is no smaller"))?;
    }
    Ok(())
}

fn without_tensors() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [from, to] = ["from.safetensors", "to.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&from, [&2u64.to_le_bytes()[..], b"{}"].concat())?;
    convert(&from, &to, Encoding::F16)?;
    ensure(read_tensors(&to)?.is_empty(), "there are tensors")
}

fn what_cannot_be_written_is_refused() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let refused = |from: &Path, to: &str, wanted: &str| {
        let error = convert(from, &folder.path().join(to), Encoding::Q8_0);
        let message = error.err().as_ref().map(Error::to_string).unwrap_or_default();
        ensure(message.contains(wanted), format!("{to}: {message}"))
    };
    let values = data("values.safetensors");
    refused(&values, "a.safetensors", "give a name that ends in .gguf")?;
    refused(&values, "a.bin", "should end in .gguf or .safetensors")?;
    refused(&values, "nowhere/a.gguf", "create it first")?;
    refused(Path::new("nowhere.safetensors"), "a.gguf", "no such file")?;
    refused(folder.path(), "inside/it", "give a folder outside of it")?;
    refused(folder.path(), "", "give a folder outside of it")?;
    ensure(std::fs::read_dir(folder.path())?.next().is_none(), "something was left behind")
}
