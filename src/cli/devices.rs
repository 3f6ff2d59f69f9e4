//! `ornstein devices`

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::flag::flag;
use super::{print, print_json};
use crate::caps::Caps;
use crate::error::Result;
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
        let mut text: String = devices.iter().enumerate().map(describe).collect();
        let mark = if auto.is_none() { "  <- auto" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "cpu  {} threads, f32{mark}", rayon::current_num_threads());
        print(text.as_bytes())
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

fn describe((index, device): (usize, &Device)) -> String {
    let mut text = describe_caps(index, &device.caps, device.auto);
    if !device.without.is_empty() {
        text += &format!("     its driver refuses {}\n", device.without.join(", "));
    }
    if let Some(why) = &device.unusable {
        text += &format!("     unusable: {why}\n");
    }
    text + &describe_kernels(&device.kernels, &device.edited)
}

fn describe_caps(index: usize, caps: &Caps, auto: bool) -> String {
    let subgroups = match caps.subgroups {
        Some([least, most]) if least == most => format!("subgroups of {least}"),
        Some([least, most]) => format!("subgroups of {least} to {most}"),
        None => "no subgroups".into(),
    };
    let matrices: Vec<_> =
        caps.coop_matrix.iter().map(|m| format!("{}x{}x{} {}->{}", m.m, m.n, m.k, m.ab, m.cr)).collect();
    let matrices = if matrices.is_empty() { "none".into() } else { matrices.join(", ") };
    let Caps { name, backend, device_type, max_invocations, .. } = caps;
    let mark = if auto { "  <- auto" } else { "" };
    let driver = if caps.driver.is_empty() { "unknown driver" } else { &caps.driver };
    let f16 = if caps.f16 { "f16" } else { "no f16" };
    let timestamps = if caps.timestamps { "timestamps" } else { "no timestamps" };
    let (binding, buffer, memory) = (size(caps.max_binding), size(caps.max_buffer), caps.workgroup_memory >> 10);
    format!(
        "{index}    {name}{mark}\n     {backend} {device_type:?}, {driver}\n     {f16}, {subgroups}, cooperative \
         matrix: {matrices}, {timestamps}\n     binding {binding}, buffer {buffer}, workgroup memory {memory} KiB, \
         {max_invocations} invocations\n"
    )
}

/// What is known of the adapter's kernels: they are checked when a network first needs them.
fn describe_kernels(verdicts: &Verdicts, edited: &Verdicts) -> String {
    let (right, wrong) = verdicts.summary();
    let wrong = wrong.iter().map(|(kernel, why)| format!("     wrong: {kernel}: {why}\n"));
    let of_edited = edited.summary().1;
    let of_edited = of_edited.iter().map(|(kernel, why)| format!("     wrong as edited: {kernel}: {why}\n"));
    let wrong: String = wrong.chain(of_edited).collect();
    if right == 0 && wrong.is_empty() {
        return "     kernels not checked yet\n".into();
    }
    let tuned = match verdicts.tuned.len() {
        0 => String::new(),
        classes => format!(", the fastest known for {classes} classes of shapes"),
    };
    format!("     {right} kernels checked and right{tuned}\n{wrong}")
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
            "forgot {right} right and {} wrong{edited} kernels, {} classes of shapes: {adapter}, {driver}\n",
            wrong.len(),
            tuned.len()
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
