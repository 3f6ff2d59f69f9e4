//! Many pictures with the networks loaded once, each written as it is made, until another thread says that it is
//! enough: `many_pictures FOLDER [SECONDS]`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ornstein::error::{Error, Result};
use ornstein::systems::{Event, Made};
use ornstein::weights::write_atomically;
use ornstein::{Device, Model, Request, Studio};

const PROMPTS: [&str; 3] = ["a red circle", "a green square on a white background", "two yellow stars"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(arguments.first().map_or(".", String::as_str));
    let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(60.0);
    let studio = Studio::open(Model::builtin())?;
    let mut loaded = studio.load(&Device::Cpu);
    let enough = &AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            // Until the time is over, or everything is drawn.
            _ = wait.recv_timeout(Duration::from_secs_f64(seconds));
            enough.store(true, Ordering::Relaxed);
        });
        for prompt in PROMPTS {
            let request = Request { prompt: prompt.into(), steps: Some(8), batch: 2, ..Request::default() };
            let mut report = |event: Event| match event {
                Event::Warning(text) => eprintln!("{text}"),
                Event::Step(done, all) => eprint!("\r{prompt}: {done} of {all} steps "),
                _ => {}
            };
            let mut keep = |made: Made| match made {
                Made::Latents(_) => Ok(()),
                Made::Picture(index, picture) => {
                    let file = folder.join(format!("{}-{index}.png", prompt.replace(' ', "-")));
                    write_atomically(&file, &picture.to_png()?)
                }
            };
            match pollster::block_on(loaded.generate_each(&request, enough, &mut report, &mut keep)) {
                Ok(drawn) => eprintln!("in {:.1} s", drawn.seconds.total),
                Err(Error::Interrupted) => {
                    eprintln!("enough");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        drop(done);
        Ok(())
    })
}
