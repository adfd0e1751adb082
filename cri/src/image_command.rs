//! `runsc-cri image`: images of a running daemon, for people.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use tonic::transport::{Channel, Endpoint};

use crate::proto::image_service_client::ImageServiceClient;
use crate::proto::images::images_client::ImagesClient;
use crate::proto::images::{ExportRequest, ImportRequest, PullRequest};
use crate::proto::{ImageSpec, ListImagesRequest, RemoveImageRequest};

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images.
    Ls,
    /// Fetch an image from its registry.
    Pull {
        image: String,
        #[arg(long, default_value = "")]
        username: String,
        /// Better given by RUNSC_CRI_PASSWORD: arguments are seen by others.
        #[arg(long, default_value = "", hide_default_value = true)]
        password: String,
    },
    /// Remove images.
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Read a tar archive with an OCI image layout.
    Import {
        file: PathBuf,
        /// Name for an archive that has none.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Write images to a tar archive with an OCI image layout.
    Export {
        file: PathBuf,
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub fn run(command: ImageCommand, socket: &Path) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(command, socket))
}

async fn serve(command: ImageCommand, socket: &Path) -> Result<()> {
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .connect()
        .await
        .with_context(|| format!("no daemon answers at {}", socket.display()))?;
    let done = match command {
        ImageCommand::Ls => list(channel).await,
        ImageCommand::Pull {
            image,
            username,
            password,
        } => pull(channel, image, username, password).await,
        ImageCommand::Rm { images } => remove(channel, images).await,
        ImageCommand::Import { file, name } => import(channel, &file, name).await,
        ImageCommand::Export { file, images } => export(channel, &file, images).await,
    };
    // A person wants the message alone.
    done.map_err(|err| match err.downcast::<tonic::Status>() {
        Ok(status) => anyhow::anyhow!("{}", status.message()),
        Err(err) => err,
    })
}

/// `12.3 MiB`.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, "B");
    for next in units {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        unit = next;
    }
    match unit {
        "B" => format!("{whole} B"),
        unit => format!("{whole}.{} {unit}", rest * 10 / 1024),
    }
}

async fn list(channel: Channel) -> Result<()> {
    let mut client = ImageServiceClient::new(channel).max_decoding_message_size(256 << 20);
    let answer = client.list_images(ListImagesRequest::default()).await?;
    let mut rows = vec![["IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned()]];
    for image in answer.into_inner().images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12);
        let id: String = id.collect();
        let mut names = image.repo_tags.clone();
        if names.is_empty() {
            names = image.repo_digests.clone();
        }
        for name in names {
            rows.push([name, id.clone(), size(image.size)]);
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    for [name, id, size] in &rows {
        println!("{name:first$}  {id:second$}  {size}");
    }
    Ok(())
}

async fn pull(channel: Channel, image: String, username: String, password: String) -> Result<()> {
    let password = match std::env::var("RUNSC_CRI_PASSWORD") {
        Ok(from_environment) if password.is_empty() => from_environment,
        _ => password,
    };
    let request = PullRequest {
        image,
        username,
        password,
    };
    let mut stream = ImagesClient::new(channel).pull(request).await?.into_inner();
    let mut out = std::io::stderr();
    let terminal = out.is_terminal();
    while let Some(progress) = stream.message().await? {
        if !progress.image_id.is_empty() {
            if terminal {
                writeln!(out, "\r\x1b[K{} fetched", size(progress.done_bytes))?;
            }
            println!("{}", progress.image_id);
            return Ok(());
        }
        if terminal && progress.total_bytes > 0 {
            write!(
                out,
                "\r{}\x1b[K",
                bar(progress.done_bytes, progress.total_bytes)
            )?;
            out.flush()?;
        }
    }
    anyhow::bail!("the daemon has gone")
}

const BAR: u64 = 30;

fn bar(done: u64, total: u64) -> String {
    let done = done.min(total);
    let full = done.saturating_mul(BAR) / total.max(1);
    let mut text = String::from("[");
    for place in 0..BAR {
        text.push(if place < full { '#' } else { ' ' });
    }
    text + &format!("] {} of {}", size(done), size(total))
}

async fn remove(channel: Channel, images: Vec<String>) -> Result<()> {
    let mut client = ImageServiceClient::new(channel);
    for image in images {
        let image = Some(ImageSpec {
            image,
            ..ImageSpec::default()
        });
        client.remove_image(RemoveImageRequest { image }).await?;
    }
    Ok(())
}

/// The daemon opens the file, from another folder.
fn absolute(file: &Path) -> Result<String> {
    Ok(std::path::absolute(file)?.display().to_string())
}

async fn import(channel: Channel, file: &Path, name: String) -> Result<()> {
    let path = absolute(file)?;
    let request = ImportRequest { path, name };
    let answer = ImagesClient::new(channel).import(request).await?;
    for image in answer.into_inner().images {
        println!("{image}");
    }
    Ok(())
}

async fn export(channel: Channel, file: &Path, images: Vec<String>) -> Result<()> {
    let path = absolute(file)?;
    let request = ExportRequest { path, images };
    ImagesClient::new(channel).export(request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_and_bars() {
        assert_eq!(super::size(1023), "1023 B");
        assert_eq!(super::size(1536), "1.5 KiB");
        assert_eq!(super::size(5 << 30), "5.0 GiB");
        assert!(super::bar(50, 100).starts_with(&format!(
            "[{}{}]",
            "#".repeat(15),
            " ".repeat(15)
        )));
    }
}
