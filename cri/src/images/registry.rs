//! Where an image comes from: the registry, its mirrors by containerd's
//! `hosts.toml` layout, and credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use oci_client::Reference;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::config::ImageConfig;
use crate::proto::AuthConfig;

/// One server that may have the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST[:PORT]`.
    pub host: String,
    pub http: bool,
    pub skip_verify: bool,
    pub ca: Vec<PathBuf>,
    pub mirror: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostsFile {
    server: Option<String>,
    #[serde(flatten)]
    own: HostFields,
    host: toml::Table,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HostFields {
    capabilities: Option<Vec<String>>,
    skip_verify: bool,
    ca: Option<OneOrMany>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl HostFields {
    fn ca(&self, dir: &Path) -> Vec<PathBuf> {
        let paths = match &self.ca {
            Some(OneOrMany::One(path)) => vec![path.clone()],
            Some(OneOrMany::Many(paths)) => paths.clone(),
            None => Vec::new(),
        };
        paths.into_iter().map(|path| dir.join(path)).collect()
    }

    fn pulls(&self) -> bool {
        self.capabilities
            .as_ref()
            .is_none_or(|all| all.iter().any(|c| c == "pull"))
    }
}

/// Mirrors in the order of the file, then the registry itself.
pub fn endpoints(config: &ImageConfig, registry: &str) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    let dirs = [
        registry.to_owned(),
        // Where ':' is not wanted in a name, containerd also takes this form.
        registry.replace(':', "_"),
        "_default".to_owned(),
    ];
    for name in dirs {
        let dir = config.registry_config_dir.join(name);
        let path = dir.join("hosts.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            Err(err) => return Err(err).with_context(|| path.display().to_string()),
        };
        let file: HostsFile =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        for (url, fields) in file.host {
            let fields: HostFields = fields
                .try_into()
                .with_context(|| format!("{} is not valid", path.display()))?;
            if fields.pulls() {
                found.push(endpoint(&url, &fields, &dir, Kind::Mirror));
            }
        }
        match file.server {
            Some(url) => found.push(endpoint(&url, &file.own, &dir, Kind::Server)),
            None => found.push(origin(registry)),
        }
        return Ok(found);
    }
    found.push(origin(registry));
    Ok(found)
}

enum Kind {
    Mirror,
    Server,
}

fn endpoint(url: &str, fields: &HostFields, dir: &Path, kind: Kind) -> Endpoint {
    let (http, rest) = match url.split_once("://") {
        Some(("http", rest)) => (true, rest),
        Some((_, rest)) => (false, rest),
        None => (is_local(url), url),
    };
    let host = rest.split('/').next().unwrap_or(rest);
    Endpoint {
        host: host.to_owned(),
        http,
        skip_verify: fields.skip_verify,
        ca: fields.ca(dir),
        mirror: matches!(kind, Kind::Mirror),
    }
}

fn origin(registry: &str) -> Endpoint {
    let host = match registry {
        "docker.io" => "index.docker.io",
        other => other,
    };
    Endpoint {
        host: host.to_owned(),
        // Only the loopback is plain HTTP without being configured so.
        http: is_local(host),
        skip_verify: false,
        ca: Vec::new(),
        mirror: false,
    }
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.starts_with("127.") || name == "[::1]"
}

impl Endpoint {
    pub fn client(&self, config: &ImageConfig) -> Result<Client> {
        let mut roots = Vec::new();
        for path in &self.ca {
            roots.push(Certificate {
                encoding: CertificateEncoding::Pem,
                data: std::fs::read(path)
                    .with_context(|| format!("{} can't be read", path.display()))?,
            });
        }
        let variable = |name: &str| {
            std::env::var(name)
                .or_else(|_| std::env::var(name.to_lowercase()))
                .ok()
                .filter(|value| !value.is_empty())
        };
        Client::try_from(ClientConfig {
            protocol: if self.http {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            accept_invalid_certificates: self.skip_verify,
            extra_root_certificates: roots,
            connect_timeout: Some(Duration::from_secs(15)),
            // The pull's own comes first and says what it is.
            read_timeout: Some(Duration::from_secs(
                config.pull_progress_timeout_s.max(1).saturating_mul(2),
            )),
            user_agent: concat!("runsc-cri/", env!("CARGO_PKG_VERSION")),
            https_proxy: variable("HTTPS_PROXY"),
            http_proxy: variable("HTTP_PROXY"),
            no_proxy: variable("NO_PROXY"),
            ..ClientConfig::default()
        })
        .with_context(|| format!("no client for {}", self.host))
    }

    /// The reference as this server is asked for it.
    pub fn reference(&self, image: &Reference) -> Reference {
        let mut image = image.clone();
        if self.mirror || image.resolve_registry() != self.host {
            image.set_mirror_registry(self.host.clone());
        }
        image
    }
}

/// Credentials of the request, else of docker's configuration.
pub fn credentials(
    config: &ImageConfig,
    registry: &str,
    given: Option<&AuthConfig>,
) -> Result<RegistryAuth> {
    if let Some(auth) = given
        && (auth.server_address.is_empty() || is_host(&auth.server_address, registry))
        && let Some(found) = from_request(auth)?
    {
        return Ok(found);
    }
    let Some(path) = &config.docker_config else {
        return Ok(RegistryAuth::Anonymous);
    };
    #[derive(Deserialize)]
    struct DockerConfig {
        #[serde(default)]
        auths: BTreeMap<String, DockerAuth>,
    }
    #[derive(Deserialize)]
    struct DockerAuth {
        #[serde(default)]
        auth: String,
    }
    let text = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    let file: DockerConfig = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not valid", path.display()))?;
    for (name, auth) in file.auths {
        if is_host(&name, registry) {
            return decode_basic(&auth.auth);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// An address of credentials, with or without scheme and path, is of this
/// registry.
fn is_host(address: &str, registry: &str) -> bool {
    let host = address
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    host == registry || (registry == "docker.io" && host == "index.docker.io")
}

fn from_request(auth: &AuthConfig) -> Result<Option<RegistryAuth>> {
    Ok(if !auth.registry_token.is_empty() {
        Some(RegistryAuth::Bearer(auth.registry_token.clone()))
    } else if !auth.username.is_empty() {
        Some(RegistryAuth::Basic(
            auth.username.clone(),
            auth.password.clone(),
        ))
    } else if !auth.auth.is_empty() {
        Some(decode_basic(&auth.auth)?)
    } else if !auth.identity_token.is_empty() {
        bail!(
            "identity tokens are not supported; give a user name and password, or a registry token"
        );
    } else {
        None
    })
}

fn decode_basic(text: &str) -> Result<RegistryAuth> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .context("the credentials are not base64")?;
    let text = String::from_utf8(bytes).context("the credentials are not text")?;
    let (user, password) = text
        .split_once(':')
        .context("the credentials are not USER:PASSWORD")?;
    Ok(RegistryAuth::Basic(
        user.to_owned(),
        password.trim_end_matches('\0').to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_another_registry() {
        let given = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: "https://registry.example/v2/".into(),
            ..AuthConfig::default()
        };
        let config = ImageConfig::default();
        let of = |registry: &str| credentials(&config, registry, Some(&given)).unwrap();
        assert!(matches!(of("registry.example"), RegistryAuth::Basic(..)));
        assert!(matches!(of("other.example"), RegistryAuth::Anonymous));
    }

    #[test]
    fn mirrors_come_first() {
        let dir = std::env::temp_dir().join(format!("hosts-{}", std::process::id()));
        let registry = dir.join("example.org");
        std::fs::create_dir_all(&registry).unwrap();
        std::fs::write(
            registry.join("hosts.toml"),
            "server = \"https://example.org\"\n\
             [host.\"http://10.0.0.1:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             [host.\"https://push.example.org\"]\ncapabilities = [\"push\"]\n",
        )
        .unwrap();
        let config = ImageConfig {
            registry_config_dir: dir.clone(),
            ..ImageConfig::default()
        };
        let found = endpoints(&config, "example.org").unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let hosts: Vec<_> = found.iter().map(|e| (e.host.as_str(), e.http)).collect();
        assert_eq!(hosts, [("10.0.0.1:5000", true), ("example.org", false)]);
    }

    #[test]
    fn credentials_of_a_request() {
        let auth = AuthConfig {
            auth: "dXNlcjpwYXNz".into(),
            ..AuthConfig::default()
        };
        assert_eq!(
            from_request(&auth).unwrap(),
            Some(RegistryAuth::Basic("user".into(), "pass".into()))
        );
    }
}
