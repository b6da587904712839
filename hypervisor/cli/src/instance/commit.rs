//! `chiton commit`: an image of an instance.

use std::error::Error;

use chiton_container::image::Reference;
use chiton_container::image::commit::{Commit, commit};
use chiton_container::image::layer::Owners;
use chiton_container::instance::{Status, Time};
use clap::Args;

use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is to be said of the new layer.
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Do not hold the instance meanwhile: what it writes at this moment may be half there.
    #[arg(long)]
    no_pause: bool,

    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,

    /// The name of the image.
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
}

pub(super) fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let instance = super::open()?.find(&options.target)?;
    let Some(digest) = &instance.spec().image_digest else {
        return Err(format!(
            "{} was not made from an image, so that there is nothing to put a layer on: see `chiton image build`",
            instance.name()
        )
        .into());
    };
    let store = crate::image::open()?;
    let base = store.image_by_digest(digest)?;
    let upper = crate::jailed::options::scratch(instance.dir()).join("upper");
    if !upper.exists() {
        return Err(instance.wrong_now("it has written nothing yet: start it first").into());
    }
    let held = !options.no_pause && instance.status()? == Status::Running;
    if held {
        super::pause::hold(&instance)?;
    }
    let about = Commit {
        name: Some(options.name),
        created_by: instance.spec().command.join(" "),
        created: Some(Time::now().to_string()),
        comment: options.message,
    };
    let made = crate::image::with_all_ids(|| {
        // In the upper folder, owners are what they are inside.
        let made = commit(&store, &base, &upper, Owners::ours(), &about)?;
        Ok(say(&format!("{}\n", made.digest()))?)
    });
    if held {
        super::pause::release(&instance)?;
    }
    made
}
