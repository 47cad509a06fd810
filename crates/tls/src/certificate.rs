//! What the certificates say that are made here.

use rcgen::{CertificateParams, DistinguishedName, DnType, Error, date_time_ymd};

/// A certificate to be signed by its own key, valid from 2020 to 2120: who pins it goes by no date. `name` is a label; `hosts` are
/// the names and addresses of a server, if it is one for others than us.
///
/// # Errors
/// If a host's name is none.
pub fn self_signed(name: &str, hosts: &[String]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(params)
}
