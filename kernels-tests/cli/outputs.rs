//! Odd names and odd files, of every option that takes one.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use super::{Check, files, in_folders, refused, text};
use crate::support::{copy_of_the_model, ensure};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("two_spellings_of_one_file_are_one_file", two_spellings_are_one_file),
    ("names_that_are_made_up_overwrite_nothing", names_that_are_made_up),
    ("a_text_on_stdin_has_a_limit", a_text_on_stdin_has_a_limit),
    #[cfg(unix)]
    ("links_to_one_file_are_one_file", unix::links_are_one_file),
    #[cfg(unix)]
    ("what_has_no_end_is_not_read_for_ever", unix::what_has_no_end_is_not_read_for_ever),
    #[cfg(unix)]
    ("texts_and_tensors_come_through_pipes", unix::texts_and_tensors_come_through_pipes),
    #[cfg(unix)]
    ("a_link_out_of_a_folder_is_not_converted", unix::a_link_out_of_a_folder_is_not_converted),
    #[cfg(unix)]
    ("a_folder_in_a_cache_is_converted", unix::a_folder_in_a_cache_is_converted),
    #[cfg(target_os = "linux")]
    ("names_are_bytes", linux::names_are_bytes),
];

const DRAW: &[&str] = &["generate", "red", "--device", "cpu", "--steps", "1", "--seed", "1"];

fn write_latents(path: &Path) -> Result<(), Failed> {
    Ok(write_tensors(path, &[("latents", &Tensor::zeros([1, 4, 16, 16]))])?)
}

fn two_spellings_are_one_file(at: &Path) -> Result<(), Failed> {
    std::fs::create_dir(at.join("sub"))?;
    for other in ["./b.png", "sub/../b.png"] {
        refused(at, &[DRAW, &["-o", other, "--save-latents", "b.png"]].concat(), 2, &["--save-latents"])?;
    }
    write_latents(&at.join("z.safetensors"))?;
    let arguments = ["convert", "z.safetensors", "--to", "f16", "-o", "sub/../z.safetensors"];
    refused(at, &arguments, 1, &["is the file to convert"])
}

fn names_that_are_made_up(at: &Path) -> Result<(), Failed> {
    for (asked, written) in [
        (&[][..], &["ornstein-1.png", "ornstein-1-2.png"][..]),
        (&["-b", "2", "-o", "a.png"], &["a-1.png", "a-2.png", "a-1-2.png", "a-2-2.png"]),
        (&["-o", "asked.png"], &["asked.png"]),
    ] {
        let before = files(at)?.len();
        for _ in 0..2 {
            let output = super::ornstein(at, &[DRAW, asked].concat())?;
            ensure(output.status.success(), text(&output.stderr))?;
        }
        ensure(files(at)?.len() == before + written.len(), format!("{:?}", files(at)?))?;
        ensure(written.iter().all(|name| at.join(name).exists()), format!("{:?}", files(at)?))?;
    }
    Ok(())
}

fn a_text_on_stdin_has_a_limit(at: &Path) -> Result<(), Failed> {
    let path = at.join("long");
    std::fs::File::create(&path)?.set_len(65 << 20)?;
    for arguments in [&["generate", "-"][..], &["generate", "--prompts", "-"]] {
        let mut command = super::command(at, arguments);
        let output = command.stdin(std::fs::File::open(&path)?).output()?;
        let said = text(&output.stderr);
        ensure(output.status.code() == Some(1) && said.contains("stdin: holds more than 64 MiB"), said)?;
    }
    ensure(files(at)? == [path], "something was written")
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    pub fn links_are_one_file(at: &Path) -> Result<(), Failed> {
        std::fs::write(at.join("b"), "")?;
        symlink("b", at.join("link.png"))?;
        std::fs::hard_link(at.join("b"), at.join("hard.png"))?;
        for other in ["link.png", "hard.png"] {
            refused(at, &[DRAW, &["-o", other, "--save-latents", "b"]].concat(), 2, &["--save-latents"])?;
        }
        Ok(())
    }

    pub fn what_has_no_end_is_not_read_for_ever(at: &Path) -> Result<(), Failed> {
        std::fs::create_dir_all(at.join("folder/unet"))?;
        for name in ["config.json", "unet/config.json", "vocab.json", "merges.txt", "add.wgsl"] {
            symlink("/dev/zero", at.join("folder").join(name))?;
        }
        let text: &[&[&str]] = &[
            &["generate", "--prompts", "/dev/zero"],
            &["generate", "red", "--vae", "folder"],
            &["generate", "red", "--shaders", "folder"],
            &["schedule", "--sampler", "ddim", "--steps", "5", "--config", "/dev/urandom"],
            &["tokenize", "x", "--tokenizer", "folder"],
            &["bench", "add", "--device", "cpu", "--compare", "/dev/zero"],
            &["models", "inspect", "folder"],
        ];
        let data: &[&[&str]] = &[
            &["generate", "red", "--init-latents", "/dev/zero"],
            &["generate", "red", "--lora", "/dev/zero:0.5"],
            &["generate", "red", "--embedding", "/dev/urandom"],
            &["generate", "red", "--control", "folder", "--control-image", "/dev/zero"],
            &["generate", "red", "--model", "/dev/zero"],
            &["forward", "unet", "--inputs", "/dev/zero", "--outputs", "a"],
        ];
        text.iter().try_for_each(|arguments| refused(at, arguments, 1, &["holds more than 64 MiB"]))?;
        data.iter().try_for_each(|arguments| refused(at, arguments, 1, &["holds more than 256 MiB"]))
    }

    /// As a shell's `<(..)`.
    pub fn texts_and_tensors_come_through_pipes(at: &Path) -> Result<(), Failed> {
        let succeed = |arguments: &[&str], content: Vec<u8>| {
            let path = at.join("fifo");
            ensure(Command::new("mkfifo").arg(&path).status()?.success(), "there is no FIFO")?;
            let writer = path.clone();
            let writer = std::thread::spawn(move || std::fs::write(writer, content));
            let output = crate::cli::ornstein(at, arguments)?;
            ensure(output.status.success(), text(&output.stderr))?;
            writer.join().map_err(|_| "the writer failed")??;
            std::fs::remove_file(&path)?;
            Ok::<_, Failed>(())
        };
        let drawing = ["generate", "--device", "cpu", "--steps", "1", "-o", "a.png"];
        succeed(&[&drawing[..], &["--prompts", "fifo"]].concat(), b"a\nb\n".to_vec())?;
        succeed(&["schedule", "--sampler", "ddim", "--steps", "5", "--config", "fifo"], b"{}".to_vec())?;
        write_latents(&at.join("z.safetensors"))?;
        let latents = std::fs::read(at.join("z.safetensors"))?;
        succeed(&[&drawing[..], &["red", "--init-latents", "fifo"]].concat(), latents)
    }

    /// A copy of the model with a link in it.
    fn refuses(at: &Path, name: &str, target: &Path, words: &[&str]) -> Result<(), Failed> {
        let link = at.join("model").join(name);
        symlink(target, &link)?;
        let named = Path::new("model").join(name).display().to_string();
        refused(at, &["convert", "model", "--to", "f16", "-o", "out"], 1, &[&[named.as_str()], words].concat())?;
        Ok(std::fs::remove_file(link)?)
    }

    pub fn a_link_out_of_a_folder_is_not_converted(at: &Path) -> Result<(), Failed> {
        copy_of_the_model(at)?;
        std::fs::create_dir(at.join("other"))?;
        std::fs::write(at.join("other/secret"), "x")?;
        refuses(at, "tokenizer/extra.json", Path::new("/etc/hostname"), &["out of the model's folder"])?;
        refuses(at, "extra.json", Path::new("../other/secret"), &["out of the model's folder"])?;
        refuses(at, "extra", Path::new("../other"), &["out of the model's folder"])?;
        refuses(at, "unet/again", Path::new(".."), &["a folder that it lies in"])?;
        refuses(at, "extra.json", Path::new("nowhere"), &["is a link to nowhere, which is not there"])?;
        std::fs::create_dir_all(at.join("models--x--y/blobs"))?;
        std::fs::write(at.join("models--x--y/blobs/a"), "{}")?;
        refuses(at, "extra.json", Path::new("../models--x--y/blobs/a"), &["out of the model's folder"])
    }

    /// As Hugging Face's: every file is a link to a blob.
    pub fn a_folder_in_a_cache_is_converted(at: &Path) -> Result<(), Failed> {
        let model = copy_of_the_model(at)?;
        let (blobs, snapshot) = (at.join("models--x--y/blobs"), at.join("models--x--y/snapshots/abc"));
        std::fs::create_dir_all(&blobs)?;
        for folder in ["", "scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
            std::fs::create_dir_all(snapshot.join(folder))?;
            let up = if folder.is_empty() { "../../blobs" } else { "../../../blobs" };
            for path in files(&model.join(folder))?.iter().filter(|path| path.is_file()) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                std::fs::copy(path, blobs.join(format!("{folder}-{name}")))?;
                symlink(format!("{up}/{folder}-{name}"), snapshot.join(folder).join(name))?;
            }
        }
        let converted = |from: &Path, to: &str| {
            let output = crate::cli::ornstein(at, &["convert", &from.display().to_string(), "--to", "f16", "-o", to])?;
            ensure(output.status.success(), text(&output.stderr))
        };
        converted(&model, "a")?;
        converted(&snapshot, "b")?;
        // Into a folder that is there, beside what it has.
        std::fs::create_dir_all(at.join("c/unet"))?;
        std::fs::write(at.join("c/unet/mine"), "kept")?;
        converted(&snapshot, "c")?;
        ensure(std::fs::read(at.join("c/unet/mine"))? == b"kept", "it is gone")?;
        for folder in ["", "scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
            for path in files(&at.join("a").join(folder))?.iter().filter(|path| path.is_file()) {
                for other in ["b", "c"] {
                    let other = at.join(other).join(folder).join(path.file_name().unwrap_or_default());
                    ensure(!other.is_symlink(), format!("{} is a link", other.display()))?;
                    ensure(std::fs::read(path)? == std::fs::read(&other)?, format!("{} differs", other.display()))?;
                }
            }
        }
        ensure(files(&at.join("c"))?.len() == files(&at.join("a"))?.len(), "something was left behind")
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::cli::write_picture;
    use crate::controlnet::write_for_the_built_in_model;

    /// `@` in an argument becomes a byte that no text has.
    fn odd(argument: &str) -> std::ffi::OsString {
        let bytes: Vec<u8> = argument.bytes().map(|byte| if byte == b'@' { 0xff } else { byte }).collect();
        OsStr::from_bytes(&bytes).to_os_string()
    }

    pub fn names_are_bytes(at: &Path) -> Result<(), Failed> {
        let path = |name: &str| at.join(odd(name));
        std::fs::rename(copy_of_the_model(at)?, path("m@"))?;
        let vae = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases/taesd/vae");
        symlink(vae, path("v@"))?;
        write_latents(&path("z@.safetensors"))?;
        write_tensors(&path("i@"), &[("z", &Tensor::zeros([1, 4, 4, 4]))])?;
        write_picture(&path("p@.png"))?;
        write_for_the_built_in_model(&path("guide@"))?;
        write_tensors(&path("e@.safetensors"), &[("emb_params", &Tensor::zeros([1, 128]))])?;
        std::fs::write(path("t@.txt"), "a\nb\n")?;
        std::fs::write(path("c@.json"), "{}")?;
        let drawing: &[&str] = &["generate", "--device", "cpu", "--steps", "1", "--seed", "1"];
        let with = |arguments: &[&'static str]| [drawing, arguments].concat();
        let commands = [
            (with(&["red", "-o", "a@.png", "--save-latents", "l@.safetensors"]), &["a@.png", "l@.safetensors"][..]),
            (with(&["red", "--json", "-b", "2", "-o", "b@.png"]), &["b@-1.png", "b@-2.png"]),
            (with(&["--prompts", "t@.txt", "-o", "t@.png"]), &["t@-1-1.png", "t@-2-1.png"]),
            (with(&["red", "-m", "m@", "--vae", "v@", "--init-latents", "z@.safetensors", "-o", "c.png"]), &["c.png"]),
            (with(&["red", "--control", "guide@", "--control-image", "p@.png", "-o", "d.png"]), &["d.png"]),
            (with(&["red", "--embedding", "e@.safetensors", "-o", "e.png"]), &["e.png"]),
            (
                vec!["forward", "vae-decoder", "--device", "cpu", "-m", "m@", "--inputs", "i@", "--outputs", "o@"],
                &["o@"],
            ),
            (vec!["convert", "z@.safetensors", "--to", "f16", "-o", "n@.gguf"], &["n@.gguf"]),
            (vec!["convert", "m@", "--to", "q8_0", "-o", "n@"], &["n@/unet", "n@/vae"]),
            (vec!["models", "inspect", "m@"], &[]),
            (vec!["models", "verify", "m@"], &[]),
            (vec!["schedule", "--sampler", "ddim", "--steps", "3", "--config", "c@.json"], &[]),
            (vec!["tokenize", "x", "--tokenizer", "m@/tokenizer"], &[]),
            (vec!["shader", "add", "-o", "s@.wgsl"], &["s@.wgsl"]),
            (vec!["bench", "add", "--suite", "cases", "--device", "cpu", "--html", "h@"], &["h@"]),
        ];
        for (arguments, written) in commands {
            let output = super::super::command(at, &[]).args(arguments.iter().map(|word| odd(word))).output()?;
            ensure(output.status.success(), format!("{arguments:?}: {}", text(&output.stderr)))?;
            ensure(!arguments.contains(&"--json") || text(&output.stdout).contains("b\u{fffd}-2.png"), "no path")?;
            for name in written {
                ensure(path(name).exists(), format!("{arguments:?} writes no {name}: {:?}", files(at)?))?;
            }
        }
        let output = super::super::command(at, &[]).args(["generate", "red", "--lora"]).arg(odd("l@:0.5")).output()?;
        ensure(text(&output.stderr).contains("l\u{fffd}: no such file"), text(&output.stderr))
    }
}
