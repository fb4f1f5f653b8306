//! From a configuration file to whatever it describes: a node, a detector, an agent.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use super::{Problem, Problems};

/// The text of a configuration file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<String, Vec<Problem>> {
    fs::read_to_string(path).map_err(|error| {
        vec![Problem {
            file: path.to_owned(),
            place: None,
            message: format!("the configuration cannot be read: {error}"),
            help: "name an existing, readable file with --config".to_owned(),
        }]
    })
}

/// What `build` makes of the file as it is written. `document` lists all keys.
///
/// # Errors
/// All problems that `build` has found, or why there is nothing; at least one. A file that is not TOML, or has an unknown,
/// missing or mistyped key, ends at the first.
pub fn check<F: DeserializeOwned, S>(
    path: &Path,
    source: &str,
    document: &str,
    build: impl FnOnce(&F, &mut Problems<'_>) -> Option<S>,
) -> Result<S, Vec<Problem>> {
    let mut problems = Problems::new(path, source);
    let file = match toml::from_str(source) {
        Ok(file) => file,
        Err(error) => {
            problems.not_toml(&error, document);
            return Err(problems.into_vec());
        }
    };
    match build(&file, &mut problems) {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems.into_vec()),
    }
}
