//! `ornstein devices`

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::{print, print_json};
use crate::caps::Caps;
use crate::error::Result;
use crate::gpu::adapter::{Choice, adapters, select};
use crate::gpu::admission::Verdicts;

#[derive(Debug, Args)]
pub(super) struct Devices {
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub(super) fn run(self) -> Result<()> {
        let adapters = pollster::block_on(adapters());
        let auto = select(&Choice::Auto, &adapters)?;
        let taken = |caps: &Caps| auto.is_some_and(|a| a.caps == *caps);
        if self.json {
            let mut devices = Vec::new();
            for (index, adapter) in adapters.iter().enumerate() {
                let verdicts = Verdicts::load(&adapter.caps);
                let (right, wrong) = verdicts.summary();
                let wrong = wrong.iter().map(|(kernel, why)| json!({ "kernel": kernel, "why": why }));
                let mut row = json!(adapter.caps);
                row["index"] = index.into();
                row["auto"] = taken(&adapter.caps).into();
                row["kernels"] = json!({ "right": right, "wrong": wrong.collect::<Vec<_>>() });
                devices.push(row);
            }
            let cpu = json!({ "name": "cpu", "threads": rayon::current_num_threads(), "auto": auto.is_none() });
            return print_json(&json!({ "devices": devices, "cpu": cpu }));
        }
        let mut text = String::new();
        for (index, adapter) in adapters.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}", describe(index, &adapter.caps, taken(&adapter.caps)));
            let _ = write!(text, "{}", describe_kernels(&Verdicts::load(&adapter.caps)));
        }
        let mark = if auto.is_none() { "  <- auto" } else { "" };
        let _ = writeln!(text, "cpu  {} threads, f32{mark}", rayon::current_num_threads());
        print(text.as_bytes())
    }
}

fn describe(index: usize, caps: &Caps, auto: bool) -> String {
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
fn describe_kernels(verdicts: &Verdicts) -> String {
    let (right, wrong) = verdicts.summary();
    if right == 0 && wrong.is_empty() {
        return "     kernels not checked yet\n".into();
    }
    let wrong: String = wrong.iter().map(|(kernel, why)| format!("     wrong: {kernel}: {why}\n")).collect();
    let tuned = match verdicts.tuned.len() {
        0 => String::new(),
        classes => format!(", the fastest known for {classes} classes of shapes"),
    };
    format!("     {right} kernels checked and right{tuned}\n{wrong}")
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib if mib >= 10 << 10 => format!("{} GiB", mib >> 10),
        mib => format!("{mib} MiB"),
    }
}
