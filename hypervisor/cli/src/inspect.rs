//! `chiton inspect`: what a guest states, and what the host would build for it; of an instance, all that
//! is known.

use std::error::Error;

use chiton_core::boot::{Options, World};
use chiton_core::explain::{Inspect, View};
use chiton_core::loader::Image;
use chiton_kvm::{Guest, Ram};

use crate::options::InspectOptions;

pub(crate) fn run(options: &InspectOptions) -> Result<(), Box<dyn Error>> {
    match options.target.to_str() {
        // What has a slash in it is no instance; a file of an instance's name is reached by one.
        Some(target) if !target.contains('/') && !options.target.is_file() => {
            crate::instance::inspect(target, options.format.as_ref())
        }
        _ => guest(options),
    }
}

fn guest(options: &InspectOptions) -> Result<(), Box<dyn Error>> {
    let bytes = Guest::read_file(&options.target)?;
    let image = Image::parse(&bytes)?;
    let plan = Options {
        processors: options.cpus,
        ring: options.ring.map(Into::into),
        ..Options::new(options.memory)
    };
    let world = World::build(&image, &plan)?;
    let symbols = image.symbols();
    let mut text = Inspect::new(&world, &symbols).to_string();
    if let Some(address) = options.walk {
        let ram = Ram::new(options.memory)?;
        world.write_to(&ram)?;
        text += &format!("\n{}\n", View::new(&world, &symbols, &ram).walk(address));
    }
    Ok(crate::say(&text)?)
}
