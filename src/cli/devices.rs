//! `ornstein devices`

use clap::Args;
use serde_json::json;

use super::flag::flag;
use super::table::{Cell, Column, Form, Screen, Table, Tone};
use super::{print, print_json};
use crate::caps::Caps;
use crate::error::{Result, counted};
use crate::gpu::adapter::{Adapter, adapters, hardware};
use crate::gpu::context::Context;
use crate::gpu::ledger::forget;
use crate::gpu::shader::Sources;
use crate::gpu::verdicts::Verdicts;

#[derive(Debug, Args)]
pub(super) struct Devices {
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Forget what is known of all devices: which kernels are right, wrong, fastest, or ended a run. It is found out
    /// again when a device is next used
    #[arg(long, conflicts_with = "json")]
    forget: bool,
}

/// Behind the one that is taken by itself.
const AUTO: &str = " <- auto";

/// An adapter, what its driver gave, and what is known of its kernels.
struct Device {
    /// Less what the driver refused.
    caps: Caps,
    /// What it announces and the driver refused.
    without: Vec<String>,
    /// Why it cannot be opened.
    unusable: Option<String>,
    /// What `auto` means.
    auto: bool,
    kernels: Verdicts,
    edited: Verdicts,
}

impl Device {
    /// Only a driver that is asked for a device tells what it refuses.
    fn of(adapter: &Adapter) -> Self {
        let (kernels, edited) = (Verdicts::load(&adapter.caps), Verdicts::of_edited(&adapter.caps));
        let opened = pollster::block_on(Context::open(adapter, Sources::default(), &kernels.without));
        let (caps, without, unusable) = match opened {
            Ok(Context { caps, without, .. }) => (caps, without, None),
            Err(error) => (adapter.caps.clone(), Vec::new(), Some(error.said(flag))),
        };
        Self { caps, without, unusable, auto: false, kernels, edited }
    }
}

impl Devices {
    pub(super) fn run(self) -> Result<()> {
        if self.forget {
            return print(describe_forgotten(&forget()?).as_bytes());
        }
        let adapters = pollster::block_on(adapters());
        let mut devices: Vec<_> = adapters.iter().map(Device::of).collect();
        let mut best =
            hardware(&adapters).into_iter().filter_map(|best| adapters.iter().position(|a| std::ptr::eq(a, best)));
        let auto = best.find(|index| devices[*index].unusable.is_none());
        if let Some(index) = auto {
            devices[index].auto = true;
        }
        if self.json {
            let rows: Vec<_> = devices.iter().enumerate().map(row).collect();
            let cpu = json!({ "name": "cpu", "threads": rayon::current_num_threads(), "auto": auto.is_none() });
            return print_json(&json!({ "devices": rows, "cpu": cpu }));
        }
        let mut facts: Vec<_> = devices.iter().enumerate().flat_map(describe).collect();
        let title = format!("cpu{}", if auto.is_none() { AUTO } else { "" });
        let threads = format!("{}, f32", rayon::current_num_threads());
        facts.push(vec![title.into(), Tone::Dim.cell("threads"), threads.into()]);
        let columns = [Column::Section(""), Column::Left("", 0), Column::Flow("")];
        print(Table::of(Form::Text(Screen::stdout()), columns, &facts).trim_start().as_bytes())
    }
}

fn row((index, device): (usize, &Device)) -> serde_json::Value {
    let kernels = |verdicts: &Verdicts| {
        let (right, wrong) = verdicts.summary();
        let wrong = wrong.iter().map(|(kernel, why)| json!({ "kernel": kernel, "why": why }));
        json!({ "right": right, "wrong": wrong.collect::<Vec<_>>() })
    };
    let mut row = json!(device.caps);
    row["index"] = index.into();
    row["auto"] = device.auto.into();
    row["refused"] = json!(device.without);
    row["unusable"] = json!(device.unusable);
    row["kernels"] = kernels(&device.kernels);
    row["edited"] = kernels(&device.edited);
    row
}

/// What is known of an adapter, by what it is about.
fn describe((index, device): (usize, &Device)) -> Vec<Vec<Cell>> {
    let Caps { name, backend, device_type, driver, .. } = &device.caps;
    let title = format!("{index} {name}{}", if device.auto { AUTO } else { "" });
    let driver = if driver.is_empty() { "unknown" } else { driver };
    let mut facts = vec![("backend", Tone::Plain.cell(format!("{backend}, {device_type:?}").to_lowercase()))];
    facts.push(("driver", driver.into()));
    if !device.without.is_empty() {
        facts.push(("refused", Tone::Noisy.cell(device.without.join(", "))));
    }
    facts.extend(device.unusable.as_ref().map(|why| ("unusable", Tone::Bad.cell(why))));
    facts.extend(describe_caps(&device.caps));
    facts.extend(describe_kernels(&device.kernels, &device.edited));
    facts.into_iter().map(|(what, fact)| vec![title.as_str().into(), Tone::Dim.cell(what), fact]).collect()
}

fn describe_caps(caps: &Caps) -> [(&'static str, Cell); 4] {
    let subgroups = match caps.subgroups {
        Some([least, most]) if least == most => format!("of {least}"),
        Some([least, most]) => format!("of {least} to {most}"),
        None => "none".into(),
    };
    let matrices: Vec<_> =
        caps.coop_matrix.iter().map(|m| format!("{}x{}x{} {}->{}", m.m, m.n, m.k, m.ab, m.cr)).collect();
    let matrices = if matrices.is_empty() { "none".into() } else { matrices.join(", ") };
    let f16 = if caps.f16 { "f16" } else { "no f16" };
    let timestamps = if caps.timestamps { "timestamps" } else { "no timestamps" };
    let (binding, buffer, memory) = (size(caps.max_binding), size(caps.max_buffer), caps.workgroup_memory >> 10);
    let invocations = caps.max_invocations;
    let limits = format!(
        "binding {binding}, buffer {buffer}, workgroup memory {memory} KiB, {invocations} invocations a workgroup"
    );
    let facts = [format!("{f16}, {timestamps}"), subgroups, matrices, limits];
    let mut names = ["has", "subgroups", "cooperative matrices", "limits"].into_iter();
    facts.map(|fact| (names.next().unwrap_or_default(), fact.into()))
}

/// What is known of the adapter's kernels: they are checked when a network first needs them.
fn describe_kernels(verdicts: &Verdicts, edited: &Verdicts) -> Vec<(&'static str, Cell)> {
    let ((right, wrong), edited) = (verdicts.summary(), edited.summary().1);
    let bad =
        |what: &'static str, wrong| describe_wrong(wrong).into_iter().map(move |line| (what, Tone::Bad.cell(line)));
    let wrong: Vec<_> = bad("wrong", wrong).chain(bad("wrong as last edited", edited)).collect();
    let tuned = match verdicts.tuned.len() {
        0 => String::new(),
        n => format!(", the fastest known for {} of shapes", counted(n, "class")),
    };
    let checked = match right {
        0 if wrong.is_empty() => {
            "not checked yet: each is when a picture first needs it, or by `ornstein validate`".into()
        }
        _ => format!("{right} checked and right (a kernel is a variant with its types and settings){tuned}"),
    };
    [("kernels", checked.into())].into_iter().chain(wrong).collect()
}

/// Kernels that are wrong: a line for each op and pair of types, with the variants and why the first of them is.
fn describe_wrong(wrong: Vec<(&str, &str)>) -> Vec<String> {
    let mut lines: Vec<(String, String, &str)> = Vec::new();
    for (kernel, why) in wrong {
        // Op, variant, shader, types, hash of the text.
        let words: Vec<_> = kernel.split(' ').collect();
        let (of, variant) = match words[..] {
            [op, variant, _, types, _] => (format!("{op} in {types}"), variant),
            _ => (kernel.into(), "its only one"),
        };
        match lines.iter_mut().find(|(known, ..)| *known == of) {
            Some((_, variants, _)) => *variants += &format!(", {variant}"),
            None => lines.push((of, variant.into(), why)),
        }
    }
    lines.into_iter().map(|(of, variants, why)| format!("{of} ({variants}): {why}")).collect()
}

fn describe_forgotten(forgotten: &[Verdicts]) -> String {
    if forgotten.is_empty() {
        return "nothing was known of any device\n".into();
    }
    let line = |verdicts: &Verdicts| {
        let (right, wrong) = verdicts.summary();
        let Verdicts { adapter, driver, tuned, .. } = verdicts;
        let edited = if verdicts.edit == 0 { "" } else { " edited" };
        format!(
            "forgot {right} right and {} wrong{edited} kernels, {} of shapes: {adapter}, {driver}\n",
            wrong.len(),
            counted(tuned.len(), "class")
        )
    };
    forgotten.iter().map(line).collect()
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib if mib >= 10 << 10 => format!("{} GiB", mib >> 10),
        mib => format!("{mib} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_an_op_that_are_wrong_are_one_line() {
        let wrong =
            [("add a add f16-f16 01", "off"), ("add b add f16-f16 02", "off"), ("add a add f32-f32 03", "far off")];
        let lines = ["add in f16-f16 (a, b): off", "add in f32-f32 (a): far off"];
        assert_eq!(describe_wrong(wrong.into()), lines);
    }
}
