//! What was asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Name, RestartPolicy, Time};

/// What an instance is to be. It is written before the instance is started for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What it is called.
    pub name: Name,
    /// When it was made.
    pub created: Time,
    /// The image it is made from, as it was written, if it is.
    pub image: Option<String>,
    /// The digest of that image's manifest.
    pub image_digest: Option<String>,
    /// What it runs, with arguments.
    pub command: Vec<String>,
    /// Whether it is started again when it ends.
    pub restart: RestartPolicy,
    /// Whether it is removed when it ends.
    pub remove: bool,
    /// Labels, as `KEY=VALUE`.
    pub labels: Vec<String>,
    /// What whoever runs it wants to know besides: options of the machine and of the jail.
    pub options: Value,
}

impl Spec {
    /// Nothing but a name.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self {
            name,
            created: Time::now(),
            image: None,
            image_digest: None,
            command: Vec::new(),
            restart: RestartPolicy::No,
            remove: false,
            labels: Vec::new(),
            options: Value::Null,
        }
    }
}
