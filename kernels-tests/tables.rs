//! Tables of `validate`, `bench` and `devices` as a terminal, a pipe and a spreadsheet get them.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;

use crate::cli::{ornstein, text};
use crate::support::{ADAPTER, ensure, gpu, test, with_tool};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let (there, device) = (gpu().is_ok(), "an adapter");
    let terminal = there && Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok();
    vec![
        with_tool(device, there, "tables::a_broken_kernel_is_said_once".into(), a_broken_kernel_is_said_once),
        with_tool(device, there, "tables::a_wrong_kernel_is_told_in_words_and_numbers".into(), a_wrong_kernel_is_told),
        with_tool(device, there, "tables::a_pipe_gets_whole_lines_without_colours".into(), a_pipe_is_plain),
        with_tool(device, there, "tables::quiet_prints_failures_and_the_summary".into(), quiet),
        with_tool("script", terminal, "tables::no_line_is_wider_than_its_terminal".into(), lines_fit),
        with_tool("script", terminal, "tables::a_terminal_gets_colours_unless_they_are_unwanted".into(), colours),
        test("tables::rows_are_comma_separated_or_markdown", rows_in_other_forms),
        test("tables::a_report_says_where_it_comes_from", a_report_says_where_it_comes_from),
        test("tables::one_form_at_a_time", one_form_at_a_time),
    ]
}

fn device() -> String {
    std::env::var(ADAPTER).unwrap_or_else(|_| "0".into())
}

/// What a command that may fail has on stdout.
fn said(arguments: &[&str]) -> Result<String, Failed> {
    Ok(text(&ornstein(Path::new("."), arguments)?.stdout))
}

/// What the command prints on a terminal of that width.
fn on_a_terminal(width: usize, settings: &str, arguments: &str) -> Result<String, Failed> {
    let program = env!("CARGO_BIN_EXE_ornstein");
    let command = format!("stty cols {width} rows 24; TERM=xterm {settings} '{program}' {arguments}");
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output()?;
    Ok(text(&output.stdout).replace('\r', ""))
}

fn a_broken_kernel_is_said_once() -> Result<(), Failed> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/scale.wgsl");
    let folder = tempfile::tempdir()?;
    for [right, wrong, told, excerpt] in BREAKS {
        std::fs::write(folder.path().join("scale.wgsl"), std::fs::read_to_string(&file)?.replace(right, wrong))?;
        let (folder, device) = (folder.path().to_string_lossy(), device());
        for command in [&["validate", "scale"][..], &["bench", "scale", "--suite", "cases"]] {
            let said = said(&[command, &["--shaders", &folder, "--device", &device]].concat())?;
            ensure(said.matches(told).count() == 1 && said.matches(excerpt).count() == 1, said.clone())?;
            ensure(said.matches("--case").count() <= 1 && said.contains("does not compile"), said)?;
        }
        let output = ornstein(Path::new("."), &["shader", "scale", "--to", "msl", "--shaders", &folder])?;
        let said = text(&output.stderr);
        let shown: String = excerpt.lines().map(|line| format!("{}\n", &line[4..])).collect();
        ensure(said.contains(told) && said.ends_with(&shown) && output.status.code() == Some(1), said)?;
    }
    Ok(())
}

/// What of a kernel is replaced by what, the line that tells of it, and what is shown of the text.
const BREAKS: [[&str; 4]; 3] = [
    [
        "if i < params.vectors",
        "if i < params.vectorz",
        "scale.wgsl:20:19: invalid field accessor `vectorz`\n",
        "        if i < params.vectorz {\n                      ^\n",
    ],
    [
        "i < params.vectors",
        "i < < params.vectors",
        "scale.wgsl:20:12: expected expression, found \"<\"\n",
        "        if i < < params.vectors {\n               ^\n",
    ],
    [
        "#import flat",
        "#import flatt",
        "scale.wgsl:2:9: there is no shared part flatt; did you mean flat?\n",
        "        #import flatt\n                ^\n",
    ],
];

fn a_wrong_kernel_is_told() -> Result<(), Failed> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/scale.wgsl");
    let folder = tempfile::tempdir()?;
    let wrong = std::fs::read_to_string(file)?.replace("* params.factor", "* (params.factor + 1000.0)");
    std::fs::write(folder.path().join("scale.wgsl"), wrong)?;
    let folder = folder.path().to_string_lossy();
    let command = ["validate", "scale", "--case", "1", "--dtype", "f32", "--device", &device(), "--shaders", &folder];
    let output = ornstein(Path::new("."), &command)?;
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    let numbers = said.contains("; worst at [") && said.contains("scale    1      1       0             >999\n");
    ensure(numbers && said.ends_with("\n1 row, 1 failed\n"), said)?;
    let told =
        error.contains("ornstein: 1 of 1 kernel case failed on ") && error.contains(", checked against the CPU: ");
    ensure(told && !error.contains("--device cpu"), error)
}

fn a_pipe_is_plain() -> Result<(), Failed> {
    let said = said(&["validate", "matmul", "--case", "14", "--device", &device()])?;
    ensure(!said.contains('\u{1b}'), said.clone())?;
    let whole = "2x9x35 35x70 2x70 2x9x70, bias, row, act Silu, residual";
    ensure(said.lines().filter(|line| line.ends_with(whole)).count() == 3, said)
}

fn quiet() -> Result<(), Failed> {
    let said = said(&["validate", "scale", "add", "--quiet", "--device", &device()])?;
    let rows = said.lines().filter(|line| line.contains("portable")).count();
    ensure(rows == 0 && said.ends_with("28 rows, 0 failed\n"), said.clone())?;
    ensure(said.contains("op    rows failed refused worst % of limit\n"), said)
}

fn lines_fit() -> Result<(), Failed> {
    let device = device();
    for width in [60, 80, 120] {
        for command in ["devices 2>/dev/null".into(), format!("validate matmul scale --device {device} 2>/dev/null")] {
            let said = on_a_terminal(width, "NO_COLOR=1", &command)?;
            let wide = said.lines().find(|line| line.chars().count() > width);
            ensure(said.lines().count() > 6 && wide.is_none(), format!("{width}: {wide:?} in\n{said}"))?;
        }
    }
    let bench = on_a_terminal(80, "NO_COLOR=1", "bench add --suite cases --device cpu 2>/dev/null")?;
    let wide = bench.lines().find(|line| line.chars().count() > 80);
    ensure(bench.contains("% arith") && wide.is_none(), format!("{wide:?} in\n{bench}"))
}

fn colours() -> Result<(), Failed> {
    let command = format!("validate scale --device {} 2>/dev/null", device());
    let coloured = on_a_terminal(80, "", &command)?;
    ensure(coloured.contains("\u{1b}[32mok"), coloured)?;
    let plain = on_a_terminal(80, "NO_COLOR=1", &command)?;
    ensure(plain.contains("ok") && !plain.contains('\u{1b}'), plain)
}

fn rows_in_other_forms() -> Result<(), Failed> {
    let command = ["bench", "add", "--suite", "cases", "--device", "cpu"];
    let csv = said(&[&command[..], &["--csv"]].concat())?;
    ensure(csv.starts_with("op,ms,± %,verdict,GFLOP/s,% arith,GB/s,% copy,variant,dtype,shapes,"), csv.clone())?;
    ensure(csv.lines().skip(1).all(|line| line.starts_with("add,")) && csv.lines().count() == 8, csv)?;
    let markdown = said(&[&command[..], &["--markdown"]].concat())?;
    ensure(markdown.contains("\n| op | ms | ± % |") && markdown.contains("\n|---|---:|---:|"), markdown)
}

fn a_report_says_where_it_comes_from() -> Result<(), Failed> {
    let command = ["bench", "add", "--suite", "cases", "--device", "cpu"];
    let text = said(&command)?;
    let begins = format!("ornstein {}, ", env!("CARGO_PKG_VERSION"));
    let first = text.lines().next().unwrap_or_default();
    let ends = " GMT: ornstein bench add --suite cases --device cpu";
    ensure(first.starts_with(&begins) && first.ends_with(ends), first)?;
    let report: serde_json::Value = serde_json::from_str(&said(&[&command[..], &["--json"]].concat())?)?;
    ensure(report["version"] == env!("CARGO_PKG_VERSION") && report["date"].is_string(), report.to_string())?;
    ensure(report["command"].as_str().is_some_and(|command| command.ends_with("cpu --json")), report.to_string())
}

fn one_form_at_a_time() -> Result<(), Failed> {
    for two in [["--csv", "--json"], ["--markdown", "--json"], ["--csv", "--markdown"], ["--quiet", "--json"]] {
        let output = ornstein(Path::new("."), &[&["validate"], &two[..]].concat())?;
        ensure(output.status.code() == Some(2), format!("{two:?}: {}", text(&output.stderr)))?;
    }
    Ok(())
}
