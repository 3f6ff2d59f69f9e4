//! GGUF files: blocks against the gguf package (`data/make_gguf.py`), and a model against the same weights unpacked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::{self, forward};
use ornstein::gpu::Gpu;
use ornstein::network::{Executor, IfWrong};
use ornstein::ops::case::compare;
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Changes, Model, read_tensors};

use super::kept::{Kept, Tensors, reference, write};
use crate::networks::NETWORK;
use crate::support::{on_gpu, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("checkpoints::gguf::blocks", blocks),
        test("checkpoints::gguf::a_model_computes_what_its_unpacked_weights_do", model),
        on_gpu("checkpoints::gguf::a_device_computes_from_blocks_what_the_cpu_does".into(), model_on_a_device),
    ]
}

fn blocks() -> Result<(), Failed> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/single");
    let (found, wanted) = (read_tensors(&data.join("blocks.gguf"))?, read_tensors(&data.join("blocks.safetensors"))?);
    assert!(found.keys().eq(wanted.keys()) && wanted.len() == 15, "{:?}", found.keys());
    for (name, (_, wanted)) in wanted {
        let (_, found) = &found[&name];
        assert_eq!(found.shape, wanted.shape, "{name}");
        let error = compare(found, &wanted).relative;
        assert!(error < 1e-7, "{name}: {error:.2e}");
    }
    Ok(())
}

const Q8_0: u32 = 8;

/// A tensor as ggml type, bytes, and the values that they stand for.
type Packed = (u32, Vec<u8>, Tensor);

/// As f32.
pub fn plain(tensor: &Tensor) -> Packed {
    (0, tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect(), tensor.clone())
}

/// As q8_0 where its rows are whole blocks, otherwise as f32.
fn packed(tensor: &Tensor) -> Packed {
    if tensor.shape.rank() < 2 || !tensor.shape.channels().is_multiple_of(32) {
        return plain(tensor);
    }
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for block in tensor.data.chunks_exact(32) {
        let scale = f16::from_f32(block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0);
        bytes.extend(scale.to_le_bytes());
        for value in block {
            let quant = (value / scale.to_f32()).round().clamp(-127.0, 127.0) as i8;
            bytes.push(quant as u8);
            values.push(scale.to_f32() * f32::from(quant));
        }
    }
    (Q8_0, bytes, Tensor::new(tensor.shape.clone(), values))
}

/// Writes a GGUF file of these tensors in blocks, and gives the values that it holds.
pub fn write_gguf(path: &Path, tensors: &Tensors) -> Result<Tensors, Failed> {
    write_gguf_of(path, tensors, &HashMap::new(), packed)
}

/// The same with metadata, and with the tensors packed in some way.
pub fn write_gguf_of(
    path: &Path,
    tensors: &Tensors,
    metadata: &HashMap<String, String>,
    pack: fn(&Tensor) -> Packed,
) -> Result<Tensors, Failed> {
    const TEXT: u32 = 8;
    let (mut header, mut data, mut values) = (Vec::new(), Vec::new(), Tensors::new());
    let counts = [tensors.len() as u64, metadata.len() as u64].map(u64::to_le_bytes).concat();
    header.extend([&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat());
    let put_text = |header: &mut Vec<u8>, text: &str| {
        header.extend((text.len() as u64).to_le_bytes());
        header.extend(text.as_bytes());
    };
    for (key, value) in metadata {
        put_text(&mut header, key);
        header.extend(TEXT.to_le_bytes());
        put_text(&mut header, value);
    }
    for (name, tensor) in tensors {
        let (kind, bytes, held) = pack(tensor);
        let dims = tensor.shape.dims();
        put_text(&mut header, name);
        header.extend((dims.len() as u32).to_le_bytes());
        dims.iter().rev().for_each(|n| header.extend((*n as u64).to_le_bytes()));
        header.extend(kind.to_le_bytes());
        header.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
        values.insert(name.clone(), held);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    std::fs::write(path, [header, data].concat())?;
    Ok(values)
}

/// A model in blocks and the same weights unpacked, in a folder. The UNet has matrices of both kinds, the text encoder
/// a projection that is three in one.
fn models(folder: &Path) -> Result<[Model; 2], Failed> {
    let [quantised, unpacked] = ["model.gguf", "model.safetensors"].map(|name| folder.join(name));
    let values = write_gguf(&quantised, &Kept::of("sd2")?.tensors())?;
    write(&unpacked, &values, DType::F32, &HashMap::new())?;
    Ok([Model::open(&quantised)?, Model::open(&unpacked)?])
}

const NETWORKS: [&str; 2] = ["unet", "text-encoder"];

fn run(model: &Model, name: &str, executor: &Executor) -> Result<forward::Tensors, Failed> {
    let start = format!("{name}.in.");
    let inputs = reference("sd2")?.into_iter();
    let inputs = inputs.filter_map(|(key, tensor)| Some((key.strip_prefix(&start)?.to_string(), tensor))).collect();
    Ok(pollster::block_on(forward(model, &Changes::default(), name, inputs, executor, &mut |_| {}))?)
}

fn model() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [quantised, unpacked] = models(folder.path())?;
    for name in NETWORKS {
        let [found, wanted] = [&quantised, &unpacked].map(|model| run(model, name, &Executor::Cpu));
        assert_eq!(found?, wanted?, "{name}");
    }
    Ok(())
}

/// There the blocks stay what they are, and are taken apart for each product.
fn model_on_a_device(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [quantised, unpacked] = models(folder.path())?;
    for (act, limit) in [(DType::F32, NETWORK[1]), (DType::F16, NETWORK[2])] {
        let executor = Executor::Gpu(Arc::clone(gpu), act, IfWrong::UseAnyway);
        for name in NETWORKS {
            let (found, wanted) = (run(&quantised, name, &executor)?, run(&unpacked, name, &Executor::Cpu)?);
            for (output, wanted) in wanted {
                let error = compare(&found[&output], &wanted).relative;
                assert!(error <= limit, "{name} in {act}: {output} is off by {error:.2e}");
            }
        }
    }
    Ok(())
}
