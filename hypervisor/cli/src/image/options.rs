//! `chiton image …`, as clap reads it.

use std::path::PathBuf;

use chiton_container::image::Reference;
use chiton_container::image::archive::Format;
use clap::{Args, Subcommand, ValueEnum};

/// Images: made, brought, shown, sent and removed.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct ImageOptions {
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Images are kept below $CHITON_HOME, or /var/lib/chiton for root, or ~/.local/share/chiton.

Examples:
  chiton image build -t hello --guest target/guests/hello
  chiton image import busybox.tar           what `docker save` or skopeo wrote
  chiton image pull localhost:5000/hello    from a registry
  chiton image ls";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an image of a guest and files.
    Build(BuildOptions),
    /// Bring images from an OCI layout (folder or archive), or from what `docker save` writes.
    Import(ImportOptions),
    /// Bring an image from a registry.
    Pull(RegistryOptions),
    /// Send an image to a registry.
    Push(RegistryOptions),
    /// List images.
    Ls(LsOptions),
    /// Show everything about an image, as JSON.
    Inspect(OneImage),
    /// Show how an image came to be.
    History(OneImage),
    /// Show what differs between two images; of one image, what its topmost layer changes.
    Diff(DiffOptions),
    /// Write an image to a file or folder.
    Export(ExportOptions),
    /// Give an image another name.
    Tag(TagOptions),
    /// Remove images: a name, and what no other name needs.
    Rm(RmOptions),
    /// Remove images without a name, and all that no image needs.
    Prune,
}

#[derive(Debug, Args)]
pub(super) struct BuildOptions {
    /// The image's name.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(super) tag: Reference,

    /// The guest, an ELF file: it becomes the image's entrypoint.
    #[arg(long, value_name = "ELF")]
    pub(super) guest: PathBuf,

    /// A file or folder of the host, and where it is in the image. May be given several times.
    #[arg(short, long, value_name = "HOST:PATH", value_parser = file)]
    pub(super) file: Vec<(PathBuf, String)>,

    /// An environment variable. May be given several times.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = crate::options::variable)]
    pub(super) env: Vec<String>,

    /// Who the program is, where it is run as a process: names of the image's /etc/passwd and /etc/group, or numbers.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,

    /// An argument of the guest, unless others are given when it is run. May be given several times.
    #[arg(short, long, value_name = "ARG", allow_hyphen_values = true)]
    pub(super) arg: Vec<String>,

    /// A label. May be given several times.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = crate::options::variable)]
    pub(super) label: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// A folder or archive; `-` is an archive on standard input. Archives may be compressed.
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,

    /// The image's name, instead of the one it brings.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(super) tag: Option<Reference>,
}

#[derive(Debug, Args)]
pub(super) struct RegistryOptions {
    /// The image, with its registry: localhost:5000/hello:1.
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub(super) name: Reference,

    /// Talk to the registry without encryption, though it is another machine.
    #[arg(long)]
    pub(super) insecure: bool,

    /// A file with credentials, as `docker login` writes it; else $REGISTRY_AUTH_FILE, or
    /// ~/.docker/config.json.
    #[arg(long, value_name = "PATH")]
    pub(super) authfile: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LsOptions {
    /// Digests alone.
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneImage {
    /// Its name, or the beginning of its digest.
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,
}

#[derive(Debug, Args)]
pub(super) struct DiffOptions {
    /// The old image.
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    /// The new image.
    #[arg(value_name = "OTHER")]
    pub(super) other: Option<String>,
}

/// What an image is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatOption {
    /// An archive with an OCI layout.
    OciArchive,
    /// A folder with an OCI layout.
    Oci,
    /// An archive that `docker load` reads.
    DockerArchive,
}

impl From<FormatOption> for Format {
    fn from(format: FormatOption) -> Self {
        match format {
            FormatOption::OciArchive => Self::OciArchive,
            FormatOption::Oci => Self::OciFolder,
            FormatOption::DockerArchive => Self::DockerArchive,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    /// Its name, or the beginning of its digest.
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    /// Where to, which must not exist; `-` is standard output.
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: PathBuf,

    /// What to write.
    #[arg(short, long, value_name = "FORMAT", default_value = "oci-archive")]
    pub(super) format: FormatOption,
}

#[derive(Debug, Args)]
pub(super) struct TagOptions {
    /// Its name, or the beginning of its digest.
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    /// The other name.
    #[arg(value_name = "NAME[:TAG]")]
    pub(super) name: Reference,
}

#[derive(Debug, Args)]
pub(super) struct RmOptions {
    /// Names, or beginnings of digests: those take all names of an image.
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
}

fn file(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((host, path)) if !host.is_empty() && path.starts_with('/') => Ok((host.into(), path.to_owned())),
        _ => Err(format!("`{text}` is not HOST:PATH, where PATH begins with /")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_path_in_the_image() {
        assert_eq!(file("a:b:/c"), Ok(("a:b".into(), "/c".into())));
        for text in ["a", ":/c", "a:c", "a:"] {
            assert!(file(text).is_err(), "{text}");
        }
    }
}
