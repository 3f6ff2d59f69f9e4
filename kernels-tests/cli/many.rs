//! Many pictures by one command, defaults in a file, and what shells and manuals are told.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::{Picture, decode};

use super::{Check, command, draw, files, in_folders, ornstein, refused, text, write_picture};
use crate::support::ensure;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("a_sheet_has_a_picture_for_every_pair_of_options", a_sheet),
    ("a_sheet_that_cannot_be_is_refused_before_anything_is_drawn", sheets_are_refused),
    ("a_line_of_a_prompts_file_has_options_of_its_own", a_lines_options),
    ("every_choice_is_drawn", every_choice),
    ("a_variation_names_both_seeds", a_variation),
    ("a_picture_is_made_again_from_its_file", made_again),
    ("defaults_of_a_file_are_taken_unless_the_command_line_says_otherwise", defaults),
    ("a_file_of_defaults_that_cannot_be_is_refused", defaults_are_refused),
    ("completions_and_manuals_name_every_command", manuals),
];

fn read(at: &Path, name: &str) -> Result<Picture, Failed> {
    Ok(decode(name, &std::fs::read(at.join(name))?)?)
}

/// Whether the second picture stands in the first at this place.
fn holds(sheet: &Picture, picture: &Picture, [left, top]: [usize; 2]) -> bool {
    picture.rgb.chunks_exact(3 * picture.width).enumerate().all(|(row, line)| {
        let at = 3 * ((top + row) * sheet.width + left);
        sheet.rgb[at..][..line.len()] == *line
    })
}

fn a_sheet(at: &Path) -> Result<(), Failed> {
    let own = ["a red circle", "--seed", "3"];
    let axes = ["--grid", "rows=guidance:1,4", "cols=sampler:ddim,euler", "-o", "sheet.png"];
    draw(at, &[&own[..], &axes].concat())?;
    let sheet = read(at, "sheet.png")?;
    // Labels of 6 x 13 pixels a letter, in two lines where they are wider than a picture, and 8 pixels between all.
    let (left, top) = (8 + 6 * "guidance 1".len() + 8, 8 + 2 * 13 + 8);
    assert_eq!((sheet.width, sheet.height), (left + 2 * (64 + 8), top + 2 * (64 + 8)));
    for (row, guidance) in ["1", "4"].into_iter().enumerate() {
        for (column, sampler) in ["ddim", "euler"].into_iter().enumerate() {
            draw(at, &[&own[..], &["--guidance", guidance, "--sampler", sampler, "-o", "one.png"]].concat())?;
            let place = [left + column * 72, top + row * 72];
            ensure(holds(&sheet, &read(at, "one.png")?, place), format!("{guidance}, {sampler} is another"))?;
        }
    }
    let parameters = sheet.parameters.unwrap_or_default();
    let wanted = r#", Grid rows: "guidance: 1, 4", Grid columns: "sampler: ddim, euler""#;
    ensure(parameters.ends_with(wanted), parameters)?;
    let said = draw(at, &["x", "--seed", "3", "--grid", "rows=prompt:a red circle,a blue star", "-o", "-"])?;
    ensure(said.stdout.starts_with(b"\x89PNG"), "the sheet is not on stdout")
}

fn sheets_are_refused(at: &Path) -> Result<(), Failed> {
    for (axes, word) in [
        (&["rows=stesp:1,2"][..], "did you mean steps?"),
        (&["rows=model:a,b"], "model is not an option that can differ"),
        (&["rows=steps:1,x"], "invalid value 'x' for '--steps"),
        (&["rows=sampler:eular,ddim"], "did you mean euler?"),
        (&["rows=steps:1", "cols=steps:2"], "steps for its rows and its columns"),
        (&["steps:1,2"], "expected rows=OPTION:A,B"),
    ] {
        let arguments = [&["generate", "red", "--device", "cpu", "--grid"][..], axes].concat();
        refused(at, &arguments, 2, &[word])?;
    }
    let seeds = (1..=260).map(|seed| seed.to_string()).collect::<Vec<_>>().join(",");
    let arguments = ["generate", "red", "--device", "cpu", "--grid", &format!("cols=seed:{seeds}"), "-o", "s.webp"];
    refused(at, &arguments, 2, &["16640x64 pixels, and WebP holds 16383 to a side: name it s.png"])?;
    refused(at, &["generate", "red", "-b", "2", "--grid", "rows=steps:1,2"], 2, &["leave out --batch"])
}

fn a_lines_options(at: &Path) -> Result<(), Failed> {
    let lines = "a red circle --seed 5 --steps 1 -o x.png\n";
    std::fs::write(at.join("p.txt"), lines)?;
    refused(at, &["generate", "--prompts", "p.txt"], 2, &["prompt 1: --output is the same for all pictures"])?;
    std::fs::write(at.join("p.txt"), "a red circle\na red circle --seed x\n")?;
    refused(at, &["generate", "--prompts", "p.txt"], 2, &["prompt 2: invalid value 'x' for '--seed"])?;
    std::fs::write(at.join("p.txt"), "a red circle --steps 3 'x'\n")?;
    refused(at, &["generate", "--prompts", "p.txt"], 2, &["prompt 1: there is text behind the options"])?;
    std::fs::write(at.join("p.txt"), "a red circle --seed 5 -n 'a star' --cfg 3\na red circle\n")?;
    draw(at, &["--prompts", "p.txt", "--seed", "7", "-o", "p.png"])?;
    draw(at, &["a red circle", "--seed", "5", "-n", "a star", "--cfg", "3", "-o", "a.png"])?;
    draw(at, &["a red circle", "--seed", "7", "-o", "b.png"])?;
    let same = |a, b| Ok::<_, Failed>(read(at, a)?.rgb == read(at, b)?.rgb);
    ensure(same("p-1-5.png", "a.png")? && same("p-2-7.png", "b.png")?, "a line was drawn otherwise")
}

fn every_choice(at: &Path) -> Result<(), Failed> {
    let prompt = "a {red|blue} circle";
    draw(at, &[prompt, "--prompt-syntax", "weighted", "--seed", "3", "-o", "a.png"])?;
    draw(at, &["a blue circle", "--prompt-syntax", "weighted", "--seed", "3", "-o", "b.png"])?;
    ensure(read(at, "a-2-3.png")?.rgb == read(at, "b.png")?.rgb, "the second choice is another")?;
    let parameters = read(at, "a-1-3.png")?.parameters.unwrap_or_default();
    ensure(parameters.starts_with("a red circle\n"), parameters)?;
    let said = text(&draw(at, &[prompt, "--seed", "3", "-o", "c.png"])?.stderr);
    ensure(!said.contains("read as text"), said)?;
    let many = "{a|b}".repeat(13);
    let arguments = ["generate", &many, "--prompt-syntax", "weighted"];
    refused(at, &arguments, 2, &["has more than 4096 choices"])
}

fn a_variation(at: &Path) -> Result<(), Failed> {
    let varied = ["red", "--seed", "3", "--variation-strength", "0.2", "--variation-seed", "8", "-b", "2"];
    let said = draw(at, &[&varied[..], &["-o", "v.png"]].concat())?;
    ensure(text(&said.stdout).contains("v-3v9.png  seed 3 varied by 9"), text(&said.stdout))?;
    assert_eq!(files(at)?.len(), 2);
    let said = text(&draw(at, &[&varied[..], &["--json"]].concat())?.stdout);
    ensure(said.contains(r#""variation_seed": 9"#), said)
}

fn made_again(at: &Path) -> Result<(), Failed> {
    let made: [&[&str]; 4] = [
        &["a red circle", "--seed", "3", "-n", "a star", "--sampler", "euler-a", "--schedule", "karras"],
        &["a (red:1.3) circle", "--prompt-syntax", "weighted", "--rng", "cuda", "--cfg", "3"],
        &["a red (circle)", "--variation-strength", "0.3", "--variation-seed", "7", "--spacing", "trailing"],
        &["a red circle", "--hires", "1.5", "--hires-strength", "0.6", "-W", "48", "--eta", "0.5"],
    ];
    for (index, options) in made.into_iter().enumerate() {
        let (first, again) = (format!("a{index}.png"), format!("b{index}.png"));
        draw(at, &[options, &["-o", &first]].concat())?;
        let drawn = ornstein(at, &["generate", "--from", &first, "-o", &again, "--device", "cpu"])?;
        ensure(text(&drawn.stderr).is_empty(), text(&drawn.stderr))?;
        let [first, again] = [read(at, &first)?, read(at, &again)?];
        ensure(first == again, format!("{:?} is not {:?}", again.parameters, first.parameters))?;
    }
    draw(at, &["--from", "a0.png", "--seed", "4", "-o", "c.png"])?;
    let parameters = read(at, "c.png")?.parameters.unwrap_or_default();
    ensure(
        parameters.contains("Sampler: Euler a, Schedule type: Karras") && parameters.contains("Seed: 4"),
        parameters,
    )?;
    let edited = ["a star", "--init-image", "a0.png", "--extend", "16,0,0,0", "--strength", "0.5"];
    draw(at, &[&edited[..], &["-o", "e.png"]].concat())?;
    let said = text(&draw(at, &["--from", "e.png", "-o", "f.png"])?.stderr);
    ensure(said == "ornstein: not taken from e.png: --strength, --extend\n", said)?;
    let rounded = ["a star", "--init-image", "a0.png", "--extend", "1,0,0,0", "-o", "g.png"];
    let said = text(&draw(at, &rounded)?.stderr);
    ensure(said == "ornstein: the extended picture, 65x64 pixels, is drawn at 64x64\n", said)?;
    write_picture(&at.join("plain.png"))?;
    refused(at, &["generate", "--from", "plain.png"], 1, &["plain.png: holds no parameters of a picture"])
}

fn defaults(at: &Path) -> Result<(), Failed> {
    let file = at.join("config.toml");
    std::fs::write(&file, "device = 'cpu'\n[generate]\nsteps = 1\nseed = 5\nsampler = 'euler'\njson = true\n")?;
    let with = |arguments: &[&str]| {
        let output = command(at, arguments).env("ORNSTEIN_CONFIG", &file).output()?;
        ensure(output.status.success(), text(&output.stderr))?;
        Ok::<_, Failed>(text(&output.stdout))
    };
    let said = with(&["generate", "red", "--steps", "2", "-o", "a.png"])?;
    ensure(said.contains(r#""seed": 5"#), said)?;
    let parameters = read(at, "a.png")?.parameters.unwrap_or_default();
    ensure(parameters.contains("Steps: 2, Sampler: Euler,"), parameters)?;
    // A grid and a line's options stand behind them.
    with(&["generate", "red", "--steps", "2", "--grid", "rows=seed:5,6", "-o", "s.png"])?;
    ensure(
        holds(&read(at, "s.png")?, &read(at, "a.png")?, [8 + 6 * "seed 5".len() + 8, 8]),
        "a sheet has other defaults",
    )?;
    with(&["schedule", "--sampler", "euler", "--steps", "3"]).map(drop)
}

fn defaults_are_refused(at: &Path) -> Result<(), Failed> {
    for (file, word) in [
        ("[generate]\nstesp = 1", "config.toml: stesp is not an option of generate; did you mean steps?"),
        ("[generte]\nsteps = 1", "[generte] is not a command with options; did you mean generate?"),
        ("colour = 1", "config.toml: colour is not an option of any command"),
        ("[generate]\nsteps = true", "steps is true, expected a text or a number"),
        ("[generate", "config.toml: "),
    ] {
        std::fs::write(at.join("config.toml"), file)?;
        let output = command(at, &["generate", "red"]).env("ORNSTEIN_CONFIG", at.join("config.toml")).output()?;
        let said = text(&output.stderr);
        ensure(output.status.code() == Some(1) && said.lines().count() == 1 && said.contains(word), said)?;
    }
    let output = command(at, &["devices"]).env("ORNSTEIN_CONFIG", at.join("missing.toml")).output()?;
    ensure(text(&output.stderr).contains("missing.toml"), text(&output.stderr))
}

fn manuals(at: &Path) -> Result<(), Failed> {
    let commands = ["generate", "validate", "bench", "devices", "models", "completions", "man"];
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&ornstein(at, &["completions", shell])?.stdout);
        let missing: Vec<_> = commands.iter().filter(|name| !script.contains(**name)).collect();
        ensure(missing.is_empty() && script.contains("variation-strength"), format!("{shell}: {missing:?}"))?;
    }
    let page = text(&ornstein(at, &["man"])?.stdout);
    ensure(page.contains(".TH ornstein 1") && page.contains("ornstein\\-generate(1)"), page)?;
    let page = text(&ornstein(at, &["man", "generate"])?.stdout);
    ensure(page.contains("\\-\\-mask\\-blur"), page)?;
    ornstein(at, &["man", "--folder", "man1"])?;
    ensure(at.join("man1/ornstein-generate.1").exists(), "there is no page for generate")?;
    refused(at, &["man", "genrate"], 2, &["did you mean generate?"])?;
    refused(at, &["completions", "tcsh"], 2, &["bash"])
}
