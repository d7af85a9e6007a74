"""Every row of two checklists has its tests: that of courierpop3login and the modules (auth.md Part
5), and that of descriptor 3 (chain-protocol.md section 15).

    python -m tests.test_checklists       prints the rows and their tests

Names are those of the tests, from their beginning. Rows of programs that aren't built are not here.
"""

from __future__ import annotations

from pathlib import Path

from tests.test_conformance_index import names

TESTS = Path(__file__).parent

LOGIN = {  # auth.md Part 5
    1: ("greeting", "1939_01_13_greeting_wrong_password_and_right_one"),
    2: ("texts of USER and PASS", "1939_01_13_greeting_wrong_password_and_right_one"),
    3: ("NOOP, STAT, APOP before the login", "1939_08_12_43_what_belongs_after_login_and_what"),
    4: ("USER without a name, PASS without USER", "1939_08_12_43_what_belongs_after_login"),
    5: ("spaces in a password", "1939_14_a_password_keeps_its_spaces"),
    6: (
        "CAPA by environment",
        *("capa_has_sasl_first_and_then_stls", "5034_01_pop3auth_tls_is_the_list_inside_tls"),
        *("2595_01_stls_is_not_announced_where_there_is_no_tls", "5034_01_what_works_is_announced"),
    ),
    7: ("USER in CAPA where TLS is required: not ours", "8314_06_a_site_can_demand_tls"),
    8: ("what TLS_REQUIRED refuses", "tls_required_comes_first", "8314_06_a_site_can_demand_tls"),
    9: ("STLS discards what was sent ahead", "row_51_cve_20_2595_06_plaintext_behind_stls"),
    10: ("prompts of LOGIN", "5034_13_login_with_two_prompts"),
    11: ("PLAIN: aborted at once, wrong after 5 s", "a_refused_login_is_answered_after_five_seco"),
    12: ("* cancels at once", "5034_07_a_star_cancels_and_login_starts_afresh"),
    13: ("what isn't announced: taken with POP3_AUTH_LAX", "lax_announces_the_list_as_it_is"),
    14: ("form of the CRAM challenge", "2195_01_the_challenge_has_couriers_form"),
    15: ("the example of hmac-md5pw", "the_state_is_the_one_that_couriers_userdbpw_makes"),
    16: ("EXTERNAL needs both", "8314_08_external_is_there_with_a_certificate_that_names_somebody"),
    17: ("DEFDOMAIN, DOMAINSEP", "defdomain_is_appended_to_names_without_a_domain"),
    18: (
        "60 s for the login",
        *("all_tries_together_have_sixty_seconds", "the_login_phase_ends_after_its_time"),
        "F_NET_1_one_octet_a_second_does_not_prolong_the_login",
    ),
    19: ("log lines", "the_log_tells_connection_failure_login_and_logout"),
    20: ("unprintable octets in the log", "CVE_38_a_name_cannot_forge_a_field_or_a_line"),
    21: (
        "temporary failure, with a daemon and in a chain",
        "the_modern_login_program_gives_up_at_a_temporary_problem",
        "2449_11_without_the_switch_no_reply_has_a_code",
    ),
    22: ("pop3pw before systempw", "pop3pw_is_the_password_and_systempw_is_not"),
    25: ("every form of hash", "the_right_secret_matches_and_wrong_ones_do_not"),
    26: ("SSHA with 8 octets of salt", "forms_that_courier_does_not_know_are_refused"),
    27: (
        "an rc file without MARKER",
        *("a_file_without_a_marker_is_refused", "a_file_without_a_marker_open_to_all_or_missing"),
    ),
    28: ("SQL in a userid", "CVE_05_hostile_names_are_nobodys"),
    29: ("* in LDAP", "CVE_05_an_asterisk_is_an_asterisk", "CVE_05_hostile_userids_find_nobody"),
    30: (
        "uid 0 and gid 0 from SQL and LDAP",
        *("a_row_that_owns_no_mailbox_is_refused", "AUTHCHAIN_05_uid_0_is_refused"),
    ),
    31: (
        "authdaemond: FAIL, and silence",
        "wrong_passwords_and_unknown_users_are_refused",
        "an_authdaemond_that_hangs_or_has_gone_is_a_temporary_failure",
    ),
    32: ("the length of AUTH", "authdaemond_takes_a_request_counted_with_and_without_its_last"),
    33: ("authpipe's program dies", "a_program_that_dies_or_hangs_is_never_an_unknown_user"),
    34: (
        "authshadow's expiry",
        *("cve_30_authshadow_refuses_who_has_expired", "authshadow_minds_the_day_of_the_account"),
    ),
    35: ("disablepop3, disableinsecurepop3", "3206_01_an_account_that_may_not_is_auth"),
    36: (
        "proxy",
        *("a_mailbox_that_is_here_is_served_here", "a_session_at_the_mail_host"),
        "our_name_is_compared_letter_for_letter",
    ),
    37: ("authtest, authenumerate", "they_print_what_the_originals_do"),
}

DESCRIPTOR_3 = {  # chain-protocol.md section 15
    1: ("the request's bytes", "the_request_is_byte_for_byte_the_documented_one"),
    2: ("AUTHSERVICE of the port", "authservice_of_the_port_names_the_service"),
    3: ("a pipe, and nothing above", "descriptor_3_is_a_pipe_and_nothing_is_above_it"),
    4: ("one process", "one_process_goes_from_the_login_to_the_server_and_leaves_no_zombie"),
    5: (
        "no zombies",
        "one_process_goes_from_the_login_to_the_server_and_leaves_no_zombie",
        "no_zombie_and_no_process_of_root_is_left",
    ),
    6: ("behind who has accepted", "a_module_behind_an_accepting_one_becomes_the_next_at_once"),
    7: ("a reject passes on the same bytes", "a_rejecting_module_passes_on_the_same_bytes_and"),
    8: ("back to the login program", "a_temporary_failure_goes_back_to_the_login_program"),
    9: ("no request", "a_module_without_a_request_says_authfailure"),
    10: ("the server without a chain", "the_server_without_a_chain_says_authfailure"),
    11: (
        "groups, gid, uid, directory, environment",
        "an_accepting_module_answers_and_becomes_the_user",
        "the_server_runs_as_the_user_and_nothing_else_stays_open",
    ),
    12: ("empty variables", "variables_without_a_value_are_there_and_empty"),
    13: ("a relative AUTHUSER", "a_relative_authuser_is_refused"),
    14: ("5 s, and no greeting again", "a_refused_login_is_answered_after_five_seconds"),
    15: ("USER again after a failure", "a_refused_login_is_answered_after_five_seconds"),
    16: (
        "60 s for all tries",
        *("all_tries_together_have_sixty_seconds", "the_login_phase_ends_after_its_time"),
    ),
    17: ("an inherited AUTHENTICATED", "an_inherited_authenticated_logs_nobody_in"),
    18: ("LF in PLAIN", "CVE_48_CVE_06_control_bytes_make_nobodys_login_and_forge_no_line"),
    19: ("modules in either order", "modules_in_either_order_find_the_user"),
    20: ("MAILDIR before the argument", "maildir_of_the_account_beats_the_argument"),
    21: ("PAM's session is closed", "the_session_is_open_before_the_service_and_closed_after_quit"),
    22: ("PASS and STAT in one packet", "2449_08_everything_in_one_packet_reaches_its_stage"),
}


def places_of(beginning: str, every: dict[str, list[str]]) -> list[str]:
    """The tests whose names begin so: names are long."""
    found = (places for name, places in every.items() if name.startswith(f"test_{beginning}"))
    return [place for places in found for place in places]


def test_every_row_has_tests_that_there_are():
    every = names()
    for checklist in (LOGIN, DESCRIPTOR_3):
        for row, (text, *beginnings) in checklist.items():
            assert beginnings, (row, text)
            for beginning in beginnings:
                assert places_of(beginning, every), (row, text, beginning)


def test_no_row_is_left_out():
    userdb_tools = {23, 24}  # makeuserdb
    assert set(LOGIN) == set(range(1, 38)) - userdb_tools
    assert set(DESCRIPTOR_3) == set(range(1, 23))


if __name__ == "__main__":
    for checklist in (LOGIN, DESCRIPTOR_3):
        for row, (text, *beginnings) in checklist.items():
            found = [place for name in beginnings for place in places_of(name, names())]
            print(f"{row}. {text}", *found, sep="\n    ")
