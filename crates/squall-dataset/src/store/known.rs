//! The names of storage options, to tell those that were meant from those that were typed.

use squall_schema::Error;

use crate::Scheme;

/// Edits between a name and one that is offered in its place.
const MAX_EDITS: usize = 3;
/// Names that are offered.
const MAX_OFFERED: usize = 3;

const CLIENT: [&str; 17] = [
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "timeout",
    "user_agent",
];
const S3: [&str; 19] = [
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "default_region",
    "endpoint",
    "endpoint_url",
    "virtual_hosted_style_request",
    "unsigned_payload",
    "skip_signature",
    "web_identity_token_file",
    "role_arn",
    "role_session_name",
    "container_credentials_relative_uri",
    "container_credentials_full_uri",
    "metadata_endpoint",
    "request_payer",
    "checksum_algorithm",
    "conditional_put",
];
const GCS: [&str; 6] = [
    "service_account",
    "service_account_path",
    "service_account_key",
    "application_credentials",
    "base_url",
    "skip_signature",
];
const AZURE: [&str; 18] = [
    "account_name",
    "account_key",
    "access_key",
    "client_id",
    "client_secret",
    "tenant_id",
    "authority_id",
    "authority_host",
    "sas_key",
    "sas_token",
    "bearer_token",
    "use_emulator",
    "endpoint",
    "msi_endpoint",
    "object_id",
    "federated_token_file",
    "use_azure_cli",
    "skip_signature",
];

/// The error for an option that a store does not know, with those of near spelling.
pub(super) fn unknown(scheme: Scheme, name: &str) -> Error {
    let (store, own, prefix): (_, &[&str], _) = match scheme {
        Scheme::S3 => ("S3", &S3, "aws_"),
        Scheme::Gcs => ("Google Cloud Storage", &GCS, "google_"),
        Scheme::Azure => ("Azure", &AZURE, "azure_"),
        _ => ("a web server", &[], ""),
    };
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_prefix(prefix).unwrap_or(&lower);
    let bare = bare.strip_prefix("storage_").unwrap_or(bare);
    let mut near: Vec<_> = own
        .iter()
        .chain(&CLIENT)
        .map(|known| (strsim::damerau_levenshtein(bare, known), *known))
        .filter(|(edits, _)| *edits <= MAX_EDITS)
        .collect();
    near.sort();
    near.dedup();
    let near: Vec<_> = near.into_iter().take(MAX_OFFERED).map(|(_, known)| known).collect();
    let hint = match near.is_empty() {
        true => "the names are those of the object_store crate".to_owned(),
        false => format!("did you mean {}", near.join(", ")),
    };
    Error::invalid(format!("no storage option of {store} has the name {name}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_offered() {
        for (scheme, name, expected) in [
            (Scheme::S3, "aws_acess_key_id", "did you mean access_key_id"),
            (Scheme::S3, "Endpiont", "did you mean endpoint"),
            (Scheme::Gcs, "google_servce_account", "did you mean service_account"),
            (Scheme::Azure, "azure_storage_acount_name", "did you mean account_name"),
            (Scheme::Http, "alow_http", "did you mean allow_http"),
            (
                Scheme::S3,
                "something_else",
                "the names are those of the object_store crate",
            ),
        ] {
            let error = unknown(scheme, name).to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn every_name_that_is_offered_is_known() {
        use object_store::aws::AmazonS3ConfigKey;
        for name in S3.iter().chain(&CLIENT) {
            assert!(name.parse::<AmazonS3ConfigKey>().is_ok(), "{name}");
        }
    }

    #[cfg(feature = "gcs")]
    #[test]
    fn every_name_that_is_offered_for_gcs_is_known() {
        use object_store::gcp::GoogleConfigKey;
        for name in GCS.iter().chain(&CLIENT) {
            assert!(name.parse::<GoogleConfigKey>().is_ok(), "{name}");
        }
    }

    #[cfg(feature = "azure")]
    #[test]
    fn every_name_that_is_offered_for_azure_is_known() {
        use object_store::azure::AzureConfigKey;
        for name in AZURE.iter().chain(&CLIENT) {
            assert!(name.parse::<AzureConfigKey>().is_ok(), "{name}");
        }
    }
}
