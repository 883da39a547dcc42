/* One byte to descriptor 3, or to standard output where there is no 3, then the end: the smallest
 * static program a bench can wait for. With an argument it stays until it is killed. */
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argv;
    int result = write(3, "x", 1) == 1 || write(1, "x", 1) == 1 ? 0 : 1;
    if (argc > 1) {
        (void)pause();
    }
    return result;
}
