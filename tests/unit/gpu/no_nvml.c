/* A library that is no NVML. */
int nothing_of_nvml(void);
int nothing_of_nvml(void)
{
    return 0;
}
