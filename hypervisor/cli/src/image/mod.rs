//! `chiton image`: words about what the library does.

mod bars;
mod options;

use std::error::Error;

use chiton_container::image::build::{Recipe, build};
use chiton_container::image::registry::{self, Access};
use chiton_container::image::store::Freed;
use chiton_container::image::{self, Digest, Image, Store, archive, diff};
use chiton_container::jail::{apart, subordinate_ids};
use indicatif::HumanBytes;
use serde_json::json;

use crate::home::home;
use crate::{complain, say};
pub(crate) use bars::Bars;
use options::Command;
pub(crate) use options::ImageOptions;

/// Does what the options say.
pub(crate) fn run(options: ImageOptions) -> Result<(), Box<dyn Error>> {
    let store = open()?;
    let bars = Bars::default();
    match options.command {
        Command::Build(options) => {
            let mut recipe = Recipe {
                guest: options.guest,
                files: options.file,
                env: options.env,
                user: options.user.unwrap_or_default(),
                args: options.arg,
                ..Recipe::default()
            };
            let labels = options.label.iter().filter_map(|label| label.split_once('='));
            recipe.labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            tell(&[build(&store, &recipe, &options.tag, &bars)?])
        }
        Command::Import(options) => tell(&archive::import(&store, &options.path, options.tag.as_ref(), &bars)?),
        Command::Pull(options) => {
            let access = Access::new(options.insecure, options.authfile.as_deref())?;
            tell(&[registry::pull(&store, &options.name, &access, &bars)?])
        }
        Command::Push(options) => {
            let access = Access::new(options.insecure, options.authfile.as_deref())?;
            let image = store.image(&options.name.to_string())?;
            registry::push(&store, &image, &options.name, &access, &bars)?;
            tell(&[image])
        }
        Command::Ls(options) => list(&store.images()?, &options),
        Command::Inspect(options) => inspect(&store, &store.image(&options.image)?),
        Command::History(options) => history(&store.image(&options.image)?),
        Command::Diff(options) => differences(&store, &options, &bars),
        Command::Export(options) => {
            let image = store.image(&options.image)?;
            Ok(archive::export(
                &store,
                &image,
                options.format.into(),
                &options.output,
                &bars,
            )?)
        }
        Command::Tag(options) => {
            let image = store.image(&options.image)?;
            store.add(Some(&options.name), &image.descriptor)?;
            Ok(())
        }
        Command::Rm(options) => {
            let mut text = String::new();
            for name in &options.images {
                for entry in store.untag(name)? {
                    text += &format!(
                        "{}\n",
                        entry.name().map_or_else(|| entry.digest.to_string(), str::to_owned)
                    );
                }
            }
            say(&text)?;
            match store.collect(&needed()?) {
                Ok(_) => Ok(()),
                // The names are gone, which is what was asked for.
                Err(busy @ image::Error::Busy { .. }) => {
                    complain(&format!("chiton: {busy}"));
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        }
        Command::Prune => Ok(say(&freed(&store.prune(&needed()?)?))?),
    }
}

/// The manifests of the images that instances were made from.
fn needed() -> Result<Vec<Digest>, Box<dyn Error>> {
    let instances = crate::instance::open()?.list()?;
    let digests = instances
        .iter()
        .filter_map(|instance| instance.spec().image_digest.as_ref());
    Ok(digests.filter_map(|digest| digest.parse().ok()).collect())
}

/// The store of this user.
pub(crate) fn open() -> Result<Store, Box<dyn Error>> {
    Ok(Store::open(std::path::absolute(home().join("images"))?)?)
}

/// What came of it: a name and a digest a line.
fn tell(images: &[Image]) -> Result<(), Box<dyn Error>> {
    let lines = images.iter().map(|image| match &image.name {
        Some(name) => format!("{} {}\n", name.familiar(), image.digest()),
        None => format!("{}\n", image.digest()),
    });
    Ok(say(&lines.collect::<String>())?)
}

fn list(images: &[Image], options: &options::LsOptions) -> Result<(), Box<dyn Error>> {
    if options.json {
        let all: Vec<_> = images
            .iter()
            .map(|image| {
                json!({
                    "name": image.name.as_ref().map(ToString::to_string),
                    "digest": image.digest(),
                    "layers": image.manifest.layers.len(),
                    "size": image.size(),
                    "guest": image.is_guest(),
                })
            })
            .collect();
        return Ok(say(&format!("{}\n", serde_json::to_string_pretty(&all)?))?);
    }
    if options.quiet {
        return Ok(say(&images
            .iter()
            .map(|image| format!("{}\n", image.digest()))
            .collect::<String>())?);
    }
    let names: Vec<_> = images
        .iter()
        .map(|image| {
            image
                .name
                .as_ref()
                .map_or_else(|| "<none>".to_owned(), |name| name.familiar())
        })
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:width$}  {:12}  {:>6}  {:>10}  KIND\n",
        "NAME", "DIGEST", "LAYERS", "SIZE"
    );
    for (image, name) in images.iter().zip(&names) {
        let kind = if image.is_guest() { "guest" } else { "files" };
        let size = HumanBytes(image.size()).to_string();
        let (digest, layers) = (image.digest().short(), image.manifest.layers.len());
        text += &format!("{name:width$}  {digest}  {layers:>6}  {size:>10}  {kind}\n");
    }
    Ok(say(&text)?)
}

/// The documents as they are stored, fields that are not known here included.
fn inspect(store: &Store, image: &Image) -> Result<(), Box<dyn Error>> {
    let manifest: serde_json::Value = serde_json::from_slice(&store.document(&image.descriptor)?)?;
    let config: serde_json::Value = serde_json::from_slice(&store.document(&image.manifest.config)?)?;
    let names: Vec<_> = store
        .entries()?
        .into_iter()
        .filter(|entry| entry.digest == image.digest())
        .filter_map(|entry| entry.name().map(str::to_owned))
        .collect();
    let all = json!({
        "digest": image.digest(),
        "names": names,
        "guest": image.is_guest(),
        "size": image.size(),
        "manifest": manifest,
        "config": config,
    });
    Ok(say(&format!("{}\n", serde_json::to_string_pretty(&all)?))?)
}

fn history(image: &Image) -> Result<(), Box<dyn Error>> {
    let mut text = format!("{:12}  {:20}  {:>10}  CREATED BY\n", "LAYER", "CREATED", "SIZE");
    let mut layers = image.manifest.layers.iter();
    let mut lines = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let digest = layer.map_or_else(|| "-".to_owned(), |layer| layer.digest.short());
        let size = layer.map_or_else(|| "-".to_owned(), |layer| HumanBytes(layer.size).to_string());
        let created: String = shown(step.created.as_deref().unwrap_or("-")).chars().take(20).collect();
        let created = created.trim_end_matches('.');
        let by = shown(step.created_by.as_deref().or(step.comment.as_deref()).unwrap_or("-"));
        lines.push(format!("{digest:12}  {created:20}  {size:>10}  {by}\n"));
    }
    for layer in layers {
        lines.push(format!(
            "{:12}  {:20}  {:>10}  -\n",
            layer.digest.short(),
            "-",
            HumanBytes(layer.size).to_string()
        ));
    }
    text.extend(lines.into_iter().rev());
    Ok(say(&text)?)
}

/// Words of an image, without what would disturb a terminal or a table.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn differences(
    store: &Store,
    options: &options::DiffOptions,
    bars: &dyn image::Progress,
) -> Result<(), Box<dyn Error>> {
    with_all_ids(|| show_differences(store, options, bars))
}

/// Does something as root of all ids that this user has, if that is more than one: files of images belong to them.
pub(crate) fn with_all_ids(act: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    match subordinate_ids() {
        Some(ids) => Ok(apart(&ids, || act().map_err(|error| error.to_string()))?),
        None => act(),
    }
}

fn show_differences(
    store: &Store,
    options: &options::DiffOptions,
    bars: &dyn image::Progress,
) -> Result<(), Box<dyn Error>> {
    let image = store.image(&options.image)?;
    let unpacked = store.unpacked(&image, bars)?;
    let changes = match &options.other {
        Some(other) => {
            let other = store.unpacked(&store.image(other)?, bars)?;
            diff::diff(unpacked.layers(), other.layers())?
        }
        None => diff::diff(unpacked.layers().get(1..).unwrap_or_default(), unpacked.layers())?,
    };
    let lines = changes
        .iter()
        .map(|(change, path)| format!("{change} /{}\n", shown(&path.to_string_lossy())));
    Ok(say(&lines.collect::<String>())?)
}

fn freed(freed: &Freed) -> String {
    let mut text: String = freed.images.iter().map(|digest| format!("{digest}\n")).collect();
    text += &format!(
        "removed {} blobs ({}) and {} unpacked layers\n",
        freed.blobs,
        HumanBytes(freed.bytes),
        freed.layers
    );
    text
}
