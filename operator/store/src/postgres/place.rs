//! Which database a URL names, and how it is spoken to. Pure, but for the files of certificates that it names.

use super::tls::{self, Trust};
use crate::StoreError;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The schema that holds the tables when the URL names none.
const SCHEMA: &str = "fairlead";

/// What a URL looks like.
const FORM: &str = "postgres://ROLE:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full";

/// A database, and the schema in it.
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) schema: String,
    pub(super) tls: MakeRustlsConnect,
}

impl Place {
    /// Reads a URL in the form that PostgreSQL's own clients take.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] says what is wrong with it, without repeating it.
    pub(super) fn of(url: &str) -> Result<Self, StoreError> {
        let url = url.trim();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong(&format!("it does not begin with postgres://; it has the form {FORM}")));
        }
        let (rest, asked) = Asked::of(url)?;
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_else(|| error.to_string());
            wrong(&format!("{cause}; it has the form {FORM}, with special letters in the password as %XX"))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong(&format!("it names no host; it has the form {FORM}")));
        }
        let schema = schema_of(config.get_options())?;
        config.ssl_mode(asked.mode.on_the_wire());
        if config.get_application_name().is_none() {
            config.application_name("fairlead");
        }
        // A server that is gone without a word is noticed within seconds, not after the system's two hours.
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        config.keepalives_idle(config.get_keepalives_idle().min(Duration::from_secs(15)));
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(Duration::from_secs(5));
            config.keepalives_retries(3);
        }
        let tls = MakeRustlsConnect::new(tls::config(asked.mode.trust(asked.root_certificates))?);
        Ok(Self { config, schema, tls })
    }

    /// The database in words, without the role's password.
    pub(super) fn words(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => self.config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres");
        format!("{host}:{port}/{database}, schema {}", self.schema)
    }
}

fn wrong(what: &str) -> StoreError {
    StoreError::Unusable(format!("the database's URL: {what}"))
}

/// What TLS has to be, as PostgreSQL's own clients understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    const fn on_the_wire(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }

    fn trust(self, certificates: Option<PathBuf>) -> Trust {
        match (self, certificates) {
            (Self::Disable | Self::Prefer | Self::Require, None) => Trust::Anybody,
            // Who names authorities wants them asked, also where only `require` stands.
            (Self::Disable | Self::Prefer | Self::Require | Self::VerifyCa, certificates) => Trust::Authorities(certificates),
            (Self::VerifyFull, certificates) => Trust::Name(certificates),
        }
    }
}

/// The parameters that the library does not know.
struct Asked {
    mode: Mode,
    root_certificates: Option<PathBuf>,
}

impl Asked {
    /// Takes them out of the URL.
    fn of(url: &str) -> Result<(String, Self), StoreError> {
        let mut asked = Self { mode: Mode::Prefer, root_certificates: None };
        let Some((before, query)) = url.split_once('?') else { return Ok((url.to_owned(), asked)) };
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => {
                    asked.mode = match value().as_str() {
                        "disable" => Mode::Disable,
                        "allow" | "prefer" => Mode::Prefer,
                        "require" => Mode::Require,
                        "verify-ca" => Mode::VerifyCa,
                        "verify-full" => Mode::VerifyFull,
                        other => {
                            return Err(wrong(&format!("sslmode is {other}; it is disable, prefer, require, verify-ca or verify-full")));
                        }
                    };
                }
                // `system` is what is trusted without a file.
                "sslrootcert" => asked.root_certificates = Some(value()).filter(|file| file != "system").map(PathBuf::from),
                "sslcert" | "sslkey" | "sslcrl" | "sslpassword" => {
                    return Err(wrong(&format!("{name} is not supported; the role signs in with a password")));
                }
                _ => rest.push(pair),
            }
        }
        let url = if rest.is_empty() { before.to_owned() } else { format!("{before}?{}", rest.join("&")) };
        Ok((url, asked))
    }
}

/// The schema that `options=-c search_path=...` names.
fn schema_of(options: Option<&str>) -> Result<String, StoreError> {
    let mut words = options.unwrap_or_default().split_whitespace();
    let mut schema = SCHEMA.to_owned();
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next().unwrap_or_default(),
            word => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).unwrap_or_default(),
        };
        if let Some(path) = setting.strip_prefix("search_path=") {
            path.trim_matches('"').clone_into(&mut schema);
        }
    }
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if schema.is_empty() || schema.len() > 63 || !schema.chars().all(plain) || schema.starts_with("pg_") {
        return Err(wrong("search_path names one schema, of lower-case letters, digits and underscores, that does not begin with pg_"));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match Place::of(url) {
            Err(StoreError::Unusable(message)) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{url} was taken"),
        }
    }

    #[test]
    fn a_url_names_a_database_and_a_schema() {
        let place = Place::of("postgres://fairlead:se%2Fcret@db.example:6432/app?sslmode=verify-full&application_name=x").unwrap();
        assert_eq!(place.words(), "db.example:6432/app, schema fairlead");
        assert_eq!((place.config.get_password(), place.config.get_ssl_mode()), (Some(b"se/cret".as_slice()), SslMode::Require));
        for options in ["-c%20search_path%3Dours", "-csearch_path%3Dours", "--search_path%3Dours", "-c%20a%3Db%20-c%20search_path%3Dours"] {
            let place = Place::of(&format!("postgresql://u:p@h/d?options={options}")).unwrap();
            assert_eq!((place.schema.as_str(), place.config.get_ssl_mode()), ("ours", SslMode::Prefer));
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_repeating_it() {
        for (url, said) in [
            ("mysql://u:hunter2@h/d", "does not begin with postgres://"),
            ("host=h password=hunter2", "does not begin with postgres://"),
            ("postgres://u:hunter2@h:port/d", "port"),
            ("postgres://u:hunter2@h/d?sslmode=maybe", "sslmode is maybe"),
            ("postgres://u:hunter2@h/d?sslcert=/tmp/c", "sslcert is not supported"),
            ("postgres://u:hunter2@h/d?colour=red", "colour"),
            ("postgres://u:hunter2@h/d?options=-c%20search_path%3Da,b", "search_path names one schema"),
            ("postgres:///d", "names no host"),
            ("postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ] {
            let message = refused(url);
            assert!(message.contains(said), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
