//! Values that f16 does not hold: the node that overflows is named, runs in f32 from there on, and the result is
//! right. Each model here has the weights of one node scaled up, so that its output is known to be the first that
//! overflows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Message;
use ornstein::forward::forward;
use ornstein::gpu::Gpu;
use ornstein::graph::Graph;
use ornstein::network::{Executor, IfWrong, Network};
use ornstein::ops::Kind;
use ornstein::ops::case::compare;
use ornstein::ops::product::conv2d::Conv2d;
use ornstein::ops::product::epilogue::Epilogue;
use ornstein::ops::product::matmul::MatMul;
use ornstein::ops::scale::Scale;
use ornstein::pack::Pack;
use ornstein::systems::{Event, Pictures, Request, Studio};
use ornstein::tensor::{DType, NoWeights, RawTensor, Tensor, Weights};
use ornstein::weights::{Changes, Model, read_tensors};

use crate::support::{change_tensor, copy_model, copy_of_the_model, ensure, on_gpu, test};

/// The contract's largest relative errors in f16: of a network's output, of a picture's latents.
const NETWORK: f64 = 5e-3;
const PICTURE: f64 = 5e-2;

/// A component of the reference model: its inputs, the file and tensor to scale by a power of two, and the node that
/// then overflows first.
type Subject = (&'static str, &'static str, &'static str, &'static str, f32, &'static str);

const SUBJECTS: [Subject; 3] = [
    (
        "text-encoder",
        "text-encoder",
        "text_encoder/model.safetensors",
        "encoder.layers.0.mlp.fc1.weight",
        65536.0,
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
    ),
    (
        "unet",
        "unet",
        "unet/diffusion_pytorch_model.safetensors",
        "mid_block.resnets.0.conv1.weight",
        262_144.0,
        "unet.mid_block.resnets.0.conv1",
    ),
    (
        "vae-decoder",
        "vae-decoder",
        "vae/diffusion_pytorch_model.safetensors",
        "decoder.mid_block.resnets.0.conv1.weight",
        262_144.0,
        "vae.decoder.mid_block.resnets.0.conv1",
    ),
];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let networks = SUBJECTS.into_iter().map(|subject| {
        on_gpu(format!("finite::{}_names_the_node_that_overflows_and_is_right", subject.1), move |gpu| {
            a_network_names_its_node(gpu, &subject)
        })
    });
    let mut trials: Vec<_> = networks.collect();
    trials.extend([
        on_gpu("finite::a_picture_tells_the_step_and_draws_no_noise_twice".into(), a_picture_tells_the_step),
        on_gpu("finite::a_picture_is_decoded_once_more_from_the_node_on".into(), a_picture_is_decoded_once_more),
        on_gpu("finite::checking_a_healthy_model_changes_no_bit".into(), checking_changes_no_bit),
        on_gpu("finite::an_overflow_that_is_gone_at_the_end_is_found_by_checking".into(), found_only_by_checking),
        on_gpu("finite::an_earlier_node_that_overflows_later_moves_the_cut".into(), the_cut_moves),
        on_gpu("finite::a_run_after_the_cut_gives_the_same_bits".into(), the_same_bits_after_the_cut),
        on_gpu("finite::what_f32_does_not_hold_is_an_error_that_names_the_node".into(), |gpu| {
            f32_does_not_hold(&f16_on(gpu))
        }),
        on_gpu("finite::weights_that_overflow_f16_are_an_error_with_the_remedy".into(), weights_that_overflow_f16),
        test("finite::what_f32_does_not_hold_is_an_error_on_the_cpu_too", || f32_does_not_hold(&Executor::Cpu)),
        test("finite::an_input_that_is_not_finite_is_named", an_input_is_named),
        test("finite::checking_on_the_cpu_finds_nothing_in_a_healthy_model", checking_on_the_cpu),
    ]);
    trials
}

fn f16_on(gpu: &Arc<Gpu>) -> Executor {
    Executor::Gpu(Arc::clone(gpu), DType::F16, IfWrong::UseAnyway)
}

/// What was said of overflows; that kernels are checked is said as well, once.
fn overflows(said: &[String]) -> Vec<&str> {
    said.iter().map(String::as_str).filter(|line| line.contains("overflows")).collect()
}

fn a_network_names_its_node(gpu: &Arc<Gpu>, subject: &Subject) -> Result<(), Failed> {
    let (component, stem, file, tensor, factor, node) = *subject;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases/sd1");
    let at = tempfile::tempdir()?;
    let folder = at.path().join("model");
    copy_model(&source, &folder)?;
    change_tensor(&folder.join(file), tensor, |w| w * factor)?;
    let model = Model::open(&folder)?;
    let run = |executor: &Executor| {
        let inputs = read_tensors(&source.join(format!("{stem}.inputs.safetensors")))?;
        let inputs = inputs.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect();
        let mut said = Vec::new();
        let tell = &mut |text: &Message| said.push(text.to_string());
        let outputs = pollster::block_on(forward(&model, &Changes::default(), component, inputs, executor, tell))?;
        Ok::<_, Failed>((outputs, said))
    };
    let (wanted, _) = run(&Executor::Cpu)?;
    let (outputs, said) = run(&f16_on(gpu))?;
    let lines = overflows(&said);
    ensure(lines.len() == 1 && lines[0].starts_with(&format!("{node}: its output overflows f16; ")), said.join("\n"))?;
    for (name, wanted) in wanted {
        let error = compare(&outputs[&name], &wanted).relative;
        ensure(error <= NETWORK, format!("{name}: relative error {error:.2e} exceeds {NETWORK:.0e}"))?;
    }
    Ok(())
}

/// A seeded picture of three steps by a sampler that draws noise in each, and what was said.
fn draw(model: Model, executor: &Executor, check: bool) -> Result<(Pictures, Vec<String>), Failed> {
    let request = Request {
        prompt: "a red circle on a blue background".into(),
        steps: Some(3),
        sampler: Some("euler-a".into()),
        seed: 7,
        batch: 1,
        check,
        ..Request::default()
    };
    let mut said = Vec::new();
    let tell = &mut |event: Event<'_>| {
        if let Event::Warning(text) = event {
            said.push(text.to_string());
        }
    };
    let pipeline = Studio::open(model)?;
    let pictures = pollster::block_on(pipeline.generate(executor, &request, &AtomicBool::new(false), tell))?;
    Ok((pictures, said))
}

/// The built-in model with one tensor scaled: what a GPU says in f16, with its latents close to the CPU's and its
/// pixels too.
fn draw_scaled(gpu: &Arc<Gpu>, file: &str, tensor: &str, factor: f32) -> Result<Vec<String>, Failed> {
    let at = tempfile::tempdir()?;
    let folder = copy_of_the_model(at.path())?;
    change_tensor(&folder.join(file), tensor, |w| w * factor)?;
    let (wanted, _) = draw(Model::open(&folder)?, &Executor::Cpu, false)?;
    let (found, said) = draw(Model::open(&folder)?, &f16_on(gpu), false)?;
    let error = compare(&found.latents, &wanted.latents).relative;
    ensure(error <= PICTURE, format!("latents: relative error {error:.2e} exceeds {PICTURE:.0e}"))?;
    let pixels = found.pictures[0].rgb.iter().zip(&wanted.pictures[0].rgb);
    let mean = pixels.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / wanted.pictures[0].rgb.len() as f64;
    ensure(mean < 5.0, format!("pixels differ by {mean:.1} of 255 on average"))?;
    Ok(said)
}

fn a_picture_tells_the_step(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let file = "unet/diffusion_pytorch_model.safetensors";
    let said = draw_scaled(gpu, file, "mid_block.resnets.0.conv1.weight", 65536.0)?;
    let lines = overflows(&said);
    let told = "step 1: unet.mid_block.resnets.0.conv1: its output overflows f16; it and the ";
    ensure(lines.len() == 1 && lines[0].starts_with(told), said.join("\n"))
}

fn a_picture_is_decoded_once_more(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let file = "vae/diffusion_pytorch_model.safetensors";
    let said = draw_scaled(gpu, file, "decoder.mid_block.resnets.0.conv1.weight", 131_072.0)?;
    let lines = overflows(&said);
    let told = "picture 1: vae.decoder.mid_block.resnets.0.conv1: its output overflows f16; it and the ";
    ensure(lines.len() == 1 && lines[0].starts_with(told), said.join("\n"))
}

fn checking_changes_no_bit(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let (plain, _) = draw(Model::builtin(), &f16_on(gpu), false)?;
    let (checked, said) = draw(Model::builtin(), &f16_on(gpu), true)?;
    ensure(overflows(&said).is_empty(), said.join("\n"))?;
    ensure(checked.latents == plain.latents, "the latents changed")?;
    ensure(checked.pictures == plain.pictures, "the pixels changed")
}

fn checking_on_the_cpu() -> Result<(), Failed> {
    let (plain, _) = draw(Model::builtin(), &Executor::Cpu, false)?;
    let (checked, said) = draw(Model::builtin(), &Executor::Cpu, true)?;
    ensure(said.is_empty(), said.join("\n"))?;
    ensure(checked.latents == plain.latents && checked.pictures == plain.pictures, "the picture changed")
}

/// `x` through these factors, one node each, and a convolution that reads every second row and column of the result.
fn factors(list: &[f32]) -> Result<Graph, Failed> {
    let mut graph = Graph::new("net");
    let mut y = graph.input("x", Kind::Act, [1, 4, 4, 4]);
    for (i, factor) in list.iter().enumerate() {
        y = graph.node(&format!("factor{i}"), Scale { factor: *factor }, &[y])?;
    }
    let w = graph.constant(Kind::Weight, Tensor::new([1, 1, 4, 1], vec![1e-3; 4]));
    let op = Conv2d { stride: 2, padding: [0; 4], upsample: None, epilogue: Epilogue::bias(false) };
    let y = graph.node("every_second", op, &[y, w])?;
    graph.output("y", y);
    Ok(graph)
}

fn load(executor: &Executor, list: &[f32]) -> Result<Network, Failed> {
    Ok(pollster::block_on(Network::load(executor, factors(list)?, &[], NoWeights, &mut |_| {}))?)
}

fn constant(value: f32) -> Tensor {
    Tensor::new([1, 4, 4, 4], vec![value; 64])
}

/// The output for `x`, and what was said.
fn run(network: &mut Network, x: &Tensor) -> Result<(Tensor, Vec<String>), Failed> {
    let mut said = Vec::new();
    let tell = &mut |text: &Message| said.push(text.to_string());
    let mut outputs = pollster::block_on(network.run(&[("x", x)], tell))?;
    Ok((outputs.remove("y").ok_or("there is no output y")?, said))
}

fn found_only_by_checking(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let mut x = constant(1.0);
    // The last row's last pixel, which nobody reads.
    x.data[60..].fill(1e4);
    let mut network = load(&f16_on(gpu), &[10.0, 10.0])?;
    let (plain, said) = run(&mut network, &x)?;
    ensure(said.is_empty(), said.join("\n"))?;
    let mut network = network.checked(true);
    let (checked, said) = run(&mut network, &x)?;
    let told = "net.factor0: its output overflows f16; it and the 2 nodes after it run in f32 from here on";
    ensure(overflows(&said) == [told], said.join("\n"))?;
    let error = compare(&checked, &plain).relative;
    ensure(error <= NETWORK, format!("relative error {error:.2e}"))
}

fn the_cut_moves(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let mut network = load(&f16_on(gpu), &[100.0, 100.0])?;
    for (x, y, node) in [(10.0, 400.0, "net.factor1: "), (1000.0, 4e4, "net.factor0: ")] {
        let (output, said) = run(&mut network, &constant(x))?;
        let lines = overflows(&said);
        ensure(lines.len() == 1 && lines[0].starts_with(node), format!("{node} {}", said.join("\n")))?;
        let error = compare(&output, &Tensor::new([1, 2, 2, 1], vec![y; 4])).relative;
        ensure(error <= NETWORK, format!("{node} relative error {error:.2e}"))?;
    }
    Ok(())
}

fn the_same_bits_after_the_cut(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let mut network = load(&f16_on(gpu), &[100.0, 0.3, 900.0, 0.7])?;
    let x = Tensor::new([1, 4, 4, 4], (0..64).map(|i| 2.0 + (i as f32).sin()).collect());
    let (first, said) = run(&mut network, &x)?;
    ensure(overflows(&said).len() == 1, said.join("\n"))?;
    let (second, said) = run(&mut network, &x)?;
    ensure(said.is_empty(), said.join("\n"))?;
    ensure(first == second, "the run that was made again differs from the next")
}

fn f32_does_not_hold(executor: &Executor) -> Result<(), Failed> {
    let mut network = load(executor, &[2.0, 1e30, 1e30])?;
    let error = run(&mut network, &constant(1.0)).err().ok_or("there is no error")?;
    let text = error.message().unwrap_or_default();
    ensure(text.starts_with("net.factor2: its output is NaN or infinite in f32"), text)
}

/// A matrix of one element, `w`, in f32.
struct Matrix(f32);

impl Weights for Matrix {
    fn place(&self) -> String {
        "matrix".into()
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let bytes = self.0.to_le_bytes().to_vec().into();
        (name == "w").then(|| RawTensor { dtype: DType::F32, shape: [1, 1].into(), bytes })
    }

    fn names(&self) -> Vec<String> {
        vec!["w".into()]
    }
}

fn weights_that_overflow_f16(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let run = |executor: &Executor| {
        let mut graph = Graph::new("net");
        let (x, w) = (graph.input("x", Kind::Act, [1, 1]), graph.matrix("w", [1, 1], Pack::Plain));
        let y = graph.node("product", MatMul { epilogue: Epilogue::bias(false) }, &[x, w])?;
        graph.output("y", y);
        let wanted = graph.wanted();
        let mut network = pollster::block_on(Network::load(executor, graph, &wanted, Matrix(1e6), &mut |_| {}))?;
        run(&mut network, &Tensor::new([1, 1], vec![2.0]))
    };
    let error = run(&f16_on(gpu)).err().ok_or("there is no error")?;
    let text = error.message().unwrap_or_default();
    ensure(text.starts_with("net.product: ") && text.ends_with("try dtype f32"), text)?;
    let (y, _) = run(&f16_on(gpu).in_f32())?;
    ensure(y.data == [2e6], format!("{:?}", y.data))
}

fn an_input_is_named() -> Result<(), Failed> {
    let mut network = load(&Executor::Cpu, &[1.0])?;
    let error = run(&mut network, &constant(f32::NAN)).err().ok_or("there is no error")?;
    let text = error.message().unwrap_or_default();
    ensure(text.starts_with("net: its input x is NaN or infinite at element [0"), text)
}
