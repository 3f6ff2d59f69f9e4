//! One picture, by the model that is built in or by one that is named: `one_picture FILE.png [PROMPT [MODEL]]`.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ornstein::error::{Message, Result};
use ornstein::gpu::adapter::Choice;
use ornstein::gpu::shader::Sources;
use ornstein::systems::Event;
use ornstein::weights::write_atomically;
use ornstein::{Device, Model, Request, Studio};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.first().map_or("picture.png", String::as_str);
    let prompt = arguments.get(1).map_or("a red circle on a blue background", String::as_str);
    let studio = Studio::open(Model::resolve(arguments.get(2).map(AsRef::as_ref))?)?;
    // The best GPU that there is, or the CPU.
    let warn = &mut |text: &Message| eprintln!("{text}");
    let device = pollster::block_on(Device::open(&Choice::Auto, None, Sources::default(), warn))?;
    let request = Request { prompt: prompt.into(), seed: 7, ..Request::default() };
    let mut report = |event: Event| match event {
        Event::Warning(text) => eprintln!("{text}"),
        Event::Step(done, all) => eprintln!("{done} of {all} steps"),
        _ => {}
    };
    let never = AtomicBool::new(false);
    let drawn = pollster::block_on(studio.generate(&device, &request, &never, &mut report))?;
    write_atomically(Path::new(file), &drawn.pictures[0].to_png()?)?;
    println!("{file}: {:.1} s on {}", drawn.seconds.total, device.name());
    Ok(())
}
