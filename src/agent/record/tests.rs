use super::*;

#[test]
fn a_logged_path_is_bounded_and_stays_text() {
    assert_eq!(logged_path("/api/v1/pods"), "/api/v1/pods");
    let long = "/é".repeat(MAX_LOGGED_PATH);
    let logged = logged_path(&long);
    assert!(logged.len() <= MAX_LOGGED_PATH && logged.len() > MAX_LOGGED_PATH - 4);
}
