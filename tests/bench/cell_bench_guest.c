/* One byte to descriptor 3, then the end: the smallest static program a bench can wait for. */
#include <unistd.h>

int main(void)
{
    return write(3, "x", 1) == 1 ? 0 : 1;
}
