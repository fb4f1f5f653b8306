//! What a process needs to build a lab, and how an ordinary user gets it.

use outlive_net::privilege::Missing;
use outlive_net::user_namespace;

use crate::error::LabError;

/// Makes this process able to build labs: without effect if it already is; otherwise the program
/// starts again, with the same arguments, as root of a user namespace.
///
/// Call it first thing in `main`, while there is one thread.
pub fn become_able() -> Result<(), LabError> {
    if !outlive_net::privilege::missing().contains(&Missing::NetAdmin) {
        return Ok(());
    }
    if user_namespace::is_inside() {
        return Err(LabError::MayNot("this user namespace gives no rights over networks".into()));
    }
    // It returns only if it failed.
    Err(LabError::MayNot(user_namespace::reexec().to_string()))
}

/// What is missing here for a lab with impaired links or nodes, in words; nothing if all is there.
pub fn missing() -> Option<String> {
    let missing = outlive_net::privilege::missing();
    let words: Vec<String> = missing.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
