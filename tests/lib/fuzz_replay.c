/* Stands in for libFuzzer's main: runs the fuzz target once over every file of the folders and
 * files it is given, and over the empty input. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 8 << 20 };

static unsigned inputs;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    if (data == NULL) {
        exit(1);
    }
    size_t size = fread(data, 1, INPUT_BYTES_MAX, f);
    (void)fclose(f);
    uint8_t *exact = malloc(size + 1);
    if (exact == NULL) {
        exit(1);
    }
    memcpy(exact, data, size);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static void run_path(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        run_file(path);
        return;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char file[4096];
        (void)snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        run_file(file);
    }
    (void)closedir(dir);
}

int main(int argc, char **argv)
{
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        run_path(argv[i]);
    }
    printf("%u inputs replayed\n", inputs);
    return 0;
}
