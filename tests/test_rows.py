"""Which test holds which requirement of the RFCs. What is not held is in the README, under "What it is not"."""

from pathlib import Path

import pytest

ROWS = {
    "E1 (clients understand a refusal)": (
        "clients/test_authlib.py",
        "test_a_refused_login_raises_its_code_and_leaves_no_token",
    ),
    "E2 (every kind of refusal)": (
        "clients/test_requests_oauthlib.py",
        "test_another_grant_raises_its_code",
    ),
    "E3 (refresh by themselves)": (
        "clients/test_requests_oauthlib.py",
        "test_an_expired_token_refreshes_once_and_is_saved",
    ),
    "E4 (the request of Swagger UI)": (
        "auth/test_login.py",
        "test_a_login_brings_a_pair_of_tokens",
    ),
    "E5 (every error has `error`)": (
        "auth/test_oauth_errors.py",
        "test_a_bad_form_is_an_invalid_request",
    ),
    "A1 RFC 6749 §3.2 POST only": (
        "auth/test_oauth_errors.py",
        "test_only_post_is_allowed",
    ),
    "A2 §3.2 empty, unknown, repeated": (
        "auth/test_login.py",
        "test_a_field_that_is_missing_or_repeated_is_named",
    ),
    "A3 §3.2 form, not query": (
        "auth/test_login.py",
        "test_credentials_in_the_query_string_are_not_read",
    ),
    "A4 §4.3.2 any Unicode": (
        "auth/test_login.py",
        "test_a_password_arrives_as_it_was_typed",
    ),
    "A5 appendix B UTF-8": (
        "auth/test_oauth_errors.py",
        "test_a_bad_form_is_an_invalid_request",
    ),
    "A6 §5.1 success": (
        "auth/test_login.py",
        "test_a_login_brings_a_pair_of_tokens",
    ),
    "A7 §5.1 no-store": (
        "auth/test_refresh.py",
        "test_the_answer_is_that_of_a_login",
    ),
    "A8 §5.2 error codes": (
        "auth/test_login.py",
        "test_another_grant_is_not_supported",
    ),
    "A9 §6 narrower scope": (
        "auth/test_refresh.py",
        "test_too_wide_a_scope_is_refused_and_uses_nothing_up",
    ),
    "A10 §4.3.2 brute force, H1 RFC 6585 §4 429": (
        "auth/test_throttle.py",
        "test_the_eleventh_attempt_is_429_also_with_the_password",
    ),
    "A11 §1.6 TLS": (
        "cli/test_commands.py",
        "test_a_public_url_in_clear_is_warned_of",
    ),
    "A12 §2.3 client authentication": (
        "clients/test_curl.py",
        "test_the_client_that_it_says_it_is_does_not_matter",
    ),
    "B1 RFC 6750 §3.1 no credentials": (
        "auth/test_bearer.py",
        "test_every_operation_but_the_open_ones_asks_for_a_token",
    ),
    "B2 §3.1 malformed request": (
        "auth/test_bearer.py",
        "test_two_authorization_headers_are_a_malformed_request",
    ),
    "B3 §3.1 invalid_token": (
        "auth/test_bearer.py",
        "test_a_token_that_is_none_of_ours_is_not_valid",
    ),
    "B4 §3.1 insufficient_scope": (
        "auth/test_bearer.py",
        "test_every_operation_asks_for_its_scope",
    ),
    "B5 §2.1 scheme": (
        "auth/test_bearer.py",
        "test_the_scheme_is_known_in_any_letter_case",
    ),
    "B6 §2.2 §2.3 header only": (
        "auth/test_bearer.py",
        "test_a_token_elsewhere_is_no_token",
    ),
    "B7 optional routes": (
        "auth/test_bearer.py",
        "test_every_operation_refuses_a_bad_token",
    ),
    "B8 §3 challenges": (
        "auth/test_bearer.py",
        "test_every_operation_refuses_a_bad_token",
    ),
    "C1 RFC 7009 §2.2 unknown tokens": (
        "auth/test_revoke.py",
        "test_an_unknown_token_is_done_with_and_ends_nothing",
    ),
    "C2 §2 access tokens": (
        "auth/test_revoke.py",
        "test_a_token_of_either_kind_ends_its_session_and_no_other",
    ),
    "C3 at once": (
        "auth/test_bearer.py",
        "test_a_revoked_session_takes_its_tokens_along",
    ),
    "C4 RFC 7662 §2.2 inactive": (
        "auth/test_introspection.py",
        "test_nothing_is_told_of_a_token_that_is_over",
    ),
    "C5 RFC 8414 metadata": (
        "auth/test_metadata.py",
        "test_every_url_that_is_listed_answers_at_its_path",
    ),
    "C6 RFC 7517 public members": (
        "auth/test_key_pairs.py",
        "test_published_keys_have_public_members_only",
    ),
    "D1 RFC 8725 §3.1 one algorithm a key": (
        "auth/test_key_pairs.py",
        "test_a_key_is_for_one_algorithm",
    ),
    "D2 RFC 9068 §2.1 typ": (
        "auth/test_tokens.py",
        "test_each_kind_is_read_as_itself_only",
    ),
    "D3 RFC 9068 §2.2 claims": (
        "auth/test_token_forgeries.py",
        "test_a_claim_of_another_type_is_refused",
    ),
    "D4 RFC 7519 §4.1.4 exp": (
        "auth/test_tokens.py",
        "test_a_token_is_good_until_the_moment_of_its_exp",
    ),
    "D5 iat": (
        "auth/test_tokens.py",
        "test_another_host_may_be_a_minute_ahead_and_no_more",
    ),
    "D6 RFC 7515 §4.1.11 crit": (
        "auth/test_token_forgeries.py",
        "test_a_further_header_member_is_refused",
    ),
    "D7 kid, jku": (
        "auth/test_token_forgeries.py",
        "test_a_kid_that_is_not_exactly_a_keys_is_refused",
    ),
    "D8 duplicate members": (
        "auth/test_token_forgeries.py",
        "test_a_claim_that_stands_twice_is_refused",
    ),
    "D9 weak secrets": (
        "test_config.py",
        "test_a_bad_value_ends_the_start_with_the_setting_s_name",
    ),
    "D10 canonical encoding": (
        "auth/test_tokens.py",
        "test_text_in_another_form_is_refused",
    ),
    "D11 sub": (
        "auth/test_bearer.py",
        "test_a_deleted_user_is_refused_and_a_namesake_is_not",
    ),
    "D12 rotation": (
        "auth/test_key_rotation.py",
        "test_a_rotation_in_three_steps_logs_nobody_out",
    ),
    "G2 RFC 9700 §4.14.2 reuse": (
        "auth/test_refresh.py",
        "test_a_repeat_after_the_grace_ends_the_session_and_no_other",
    ),
    "G3 refresh tokens end": (
        "auth/test_refresh.py",
        "test_a_session_ends_thirty_days_after_its_login",
    ),
    "G4 §2.3 audience": (
        "auth/test_tokens.py",
        "test_another_issuer_or_audience_is_refused",
    ),
    "G5 §4.3 no tokens in URLs": (
        "auth/test_bearer.py",
        "test_a_token_elsewhere_is_no_token",
    ),
    "H2 RFC 9110 §13 ETags": (
        "tasks/test_change.py",
        "test_a_change_is_not_made_if_the_etag_is_none_of_if_match",
    ),
    "H3 RFC 9110 HEAD, Allow": (
        "http/test_head.py",
        "test_head_has_the_status_and_headers_of_get",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_test_that_holds_a_row_is_there(row: str) -> None:
    file, test = ROWS[row]

    assert f"def {test}(" in (Path(__file__).parent / file).read_text()
