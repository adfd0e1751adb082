//! Names of images: `[REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, as docker has
//! them. The parser of the registry library is a regular expression whose
//! automaton takes 6 MB for good.

use anyhow::{Context, Result, bail, ensure};
use oci_client::Reference;

/// Longest registry and repository together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Where names without a registry are.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_ALIAS: &str = "index.docker.io";

/// Parses a name; a missing registry, `library/` and tag are filled in.
pub fn parse(name: &str) -> Result<Reference> {
    parts(name).with_context(|| format!("{name:?} is not an image name"))
}

fn parts(name: &str) -> Result<Reference> {
    let (name, digest) = match name.rsplit_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    // A colon before a slash is that of a port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let is_registry = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.contains(|c: char| c.is_ascii_uppercase())
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = match registry {
        DEFAULT_REGISTRY_ALIAS => DEFAULT_REGISTRY,
        other => other,
    };
    check_registry(registry)?;
    ensure!(
        repository.split('/').all(is_component),
        "the repository is not of lower-case words"
    );
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    ensure!(
        registry.len().saturating_add(repository.len()) < MAX_NAME,
        "it is longer than {MAX_NAME} characters"
    );
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let registry = registry.to_owned();
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest.to_owned())
        }
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.to_owned()),
        (tag, None) => {
            let tag = tag.unwrap_or("latest").to_owned();
            Reference::with_tag(registry, repository, tag)
        }
    })
}

fn is_alphanumeric(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

/// Labels of letters, digits and inner dashes between dots, then a port.
fn check_registry(registry: &str) -> Result<()> {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().copied().is_some_and(is_alphanumeric)
            && bytes.last().copied().is_some_and(is_alphanumeric)
            && bytes.iter().all(|c| is_alphanumeric(*c) || *c == b'-')
    };
    ensure!(
        host.split('.').all(is_label),
        "the registry is not a host name"
    );
    if let Some(port) = port {
        let is_number = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
        ensure!(is_number, "the registry's port is not a number");
    }
    Ok(())
}

/// Lower-case words and numbers with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = text.split(is_word).filter(|part| !part.is_empty());
    let mut between = between.map(|separator| {
        matches!(separator, "." | "_" | "__") || separator.bytes().all(|c| c == b'-')
    });
    text.starts_with(is_word) && text.ends_with(is_word) && between.all(|valid| valid)
}

fn check_tag(tag: &str) -> Result<()> {
    let is_word = |c: u8| is_alphanumeric(c) || c == b'_';
    let valid = tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|c| is_word(c) || c == b'.' || c == b'-')
        && tag.len() <= MAX_TAG;
    ensure!(valid, "the tag {tag:?} is not one");
    Ok(())
}

fn check_digest(digest: &str) -> Result<()> {
    let (algorithm, hex) = digest.split_once(':').context("the digest has no ':'")?;
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        other => bail!("digest algorithm {other:?} is not known"),
    };
    let valid = hex.len() == digits && hex.bytes().all(|c| c.is_ascii_hexdigit());
    ensure!(valid, "the digest is not of {digits} hexadecimal digits");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_are_of_a_host() {
        // The library takes it for a repository, which has no capitals.
        assert_eq!(parse("Host/x").expect("valid").registry(), "Host");
    }

    /// What the library says of the same names.
    #[test]
    fn as_the_library_has_it() {
        let hex = "0123456789abcdef".repeat(4);
        let long = "a".repeat(300);
        let names = [
            "busybox",
            "busybox:1.36",
            "library/busybox",
            "user/repo:tag",
            "docker.io/busybox",
            "index.docker.io/busybox:x",
            "docker.io/user/repo",
            "localhost/x",
            "localhost:5000/x:y",
            "127.0.0.1:5000/a/b/c:T.a-g_1",
            "registry.example/a__b/c.d/e--f",
            "gcr.io/x",
            "a.b/c:_x",
            &format!("busybox@sha256:{hex}"),
            &format!("r.example:1/x:t@sha256:{hex}"),
            &format!("r.example/x@sha256:{}", &hex[1..]),
            &format!("r.example/x@md5:{hex}"),
            &format!("r.example/{long}"),
            &format!("x:{}", "t".repeat(128)),
            &format!("x:{}", "t".repeat(129)),
            "",
            "/",
            "/x",
            "x/",
            "x:",
            "x@",
            ":tag",
            "UPPER",
            "user/UPPER",
            "a..b/c",
            "-a.b/c",
            "a.b:x/c",
            "a.b/c_",
            "a.b/_c",
            "a.b/c___d",
            "a.b/c._d",
            "a.b/c//d",
            "a.b/c:-t",
            "a.b/c d",
            "a.b/\u{e4}",
            "a.b/c:t:u",
            "https://a.b/c",
            "../x",
            "a.b/../c",
        ];
        for name in names {
            let theirs = name.parse::<Reference>();
            match (parse(name), theirs) {
                (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{name:?}"),
                (Err(_), Err(_)) => {}
                (ours, theirs) => panic!("{name:?}: {ours:?} here, {theirs:?} there"),
            }
        }
    }
}
