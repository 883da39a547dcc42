/* What an agent makes of a canary's answer, and the bait that it lays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/bait.h"
#include "agent/canary/check_table.h"
#include "agent/canary_report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct canary_report report;

static enum status_code decode(const char *text)
{
    struct errmsg msg = {.text = ""};
    struct status s = canary_report_decode(bytes_of(text, strlen(text)), &report, &msg);
    if (!status_is_ok(s)) {
        assert_int_equal(report.count, 0);
        assert_true(msg.text[0] != '\0');
    }
    return s.code;
}

static void lines_become_results(void **state)
{
    (void)state;
    assert_int_equal(decode("host-file h open: ENOENT\nbpf b done\x01\nkexec n \nperf r late"),
                     STATUS_OK);
    assert_int_equal(report.count, 4);
    assert_string_equal(report.results[0].check, "host-file");
    assert_int_equal(report.results[0].verdict, ISOLATION_HELD);
    assert_string_equal(report.results[0].detail, "open: ENOENT");
    assert_int_equal(report.results[1].verdict, ISOLATION_BREACHED);
    assert_string_equal(report.results[1].detail, "done?");
    assert_int_equal(report.results[2].verdict, ISOLATION_NOT_APPLICABLE);
    assert_int_equal(report.results[3].verdict, ISOLATION_NOT_RUN);
}

static void what_is_no_canary_s_line_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\n",   "host-file",    "host-file h",  "host-file x y", "Host-file h y",
        " h y", "a h x\na b x", "host_file h x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(decode(bad[i]), STATUS_INVALID);
    }
}

static void too_much_is_refused_at_the_limit(void **state)
{
    (void)state;
    char text[ISOLATION_RESULTS_MAX * 16 + 512] = "";
    size_t used = 0;
    for (int i = 0; i < ISOLATION_RESULTS_MAX; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "c-%d h x\n", i);
    }
    assert_int_equal(decode(text), STATUS_OK);
    canary_report_complete(&report);
    assert_int_equal(report.count, ISOLATION_RESULTS_MAX);
    (void)snprintf(text + used, sizeof text - used, "one-more h x\n");
    assert_int_equal(decode(text), STATUS_LIMIT);
    (void)snprintf(text, sizeof text, "a h %0*d", ISOLATION_DETAIL_BYTES - 1, 0);
    assert_int_equal(decode(text), STATUS_OK);
    (void)snprintf(text, sizeof text, "a h %0*d", ISOLATION_DETAIL_BYTES, 0);
    assert_int_equal(decode(text), STATUS_LIMIT);
}

static void the_nonce_is_a_breach_whatever_the_verdict(void **state)
{
    (void)state;
    assert_int_equal(decode("host-file h it says 1234abcd here\nbpf h EPERM\n"), STATUS_OK);
    canary_report_prove(&report, "1234abcd");
    assert_int_equal(report.results[0].verdict, ISOLATION_BREACHED);
    assert_string_equal(report.results[0].detail, "it says 1234abcd here (the bait: proven)");
    assert_int_equal(report.results[1].verdict, ISOLATION_HELD);
}

static void missing_checks_are_not_run(void **state)
{
    (void)state;
    assert_int_equal(decode("bpf h EPERM\nnew-check h x\n"), STATUS_OK);
    canary_report_complete(&report);
    assert_int_equal(report.count, CANARY_CHECKS_COUNT + 1);
    assert_string_equal(report.results[2].check, "host-file");
    assert_int_equal(report.results[2].verdict, ISOLATION_NOT_RUN);
}

static void bait_is_laid_anew_each_time_and_taken_away(void **state)
{
    (void)state;
    struct bait b;
    struct buffer text = {0};
    struct errmsg msg = {.text = ""};
    char nonce[BAIT_NONCE_BYTES + 1], file[BAIT_TEXT_BYTES];
    assert_int_equal(bait_lay(&b, "/test/of/bait", &msg).code, STATUS_OK);
    memcpy(nonce, b.nonce, sizeof nonce);
    memcpy(file, b.file, sizeof file);
    assert_int_equal(access(file, R_OK), 0);
    assert_int_equal(bait_targets(&b, 7, &text).code, STATUS_OK);
    assert_null(memmem(text.data, text.size, nonce, strlen(nonce)));
    assert_null(memmem(text.data, text.size, b.other_nonce, strlen(b.other_nonce)));
    bait_take(&b);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(bait_lay(&b, "/test/of/bait", &msg).code, STATUS_OK);
    assert_string_not_equal(b.nonce, nonce);
    assert_string_equal(b.file, file);
    bait_sweep("/test/of/bait");
    assert_int_equal(access(file, F_OK), -1);
    bait_take(&b);
    buffer_close(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_results),
        cmocka_unit_test(what_is_no_canary_s_line_is_refused),
        cmocka_unit_test(too_much_is_refused_at_the_limit),
        cmocka_unit_test(the_nonce_is_a_breach_whatever_the_verdict),
        cmocka_unit_test(missing_checks_are_not_run),
        cmocka_unit_test(bait_is_laid_anew_each_time_and_taken_away),
    };
    return cmocka_run_group_tests_name("canary report", tests, NULL, NULL);
}
