// The time of a small operator call without Python: `loop CALLS STRETCHES` prints the best stretch in nanoseconds a call.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv)
{
    const long calls = argc > 1 ? std::atol(argv[1]) : 20000;
    const long stretches = argc > 2 ? std::atol(argv[2]) : 50;
    c10::NoGradGuard no_grad;
    at::Tensor a = at::ones({4, 4}), b = at::ones({4, 4});
    double best = 1e18;
    for (long s = 0; s < stretches + 1; s++) {
        const auto start = std::chrono::steady_clock::now();
        for (long i = 0; i < calls; i++) {
            at::Tensor c = at::add(a, b);
        }
        const auto end = std::chrono::steady_clock::now();
        const double ns = std::chrono::duration<double, std::nano>(end - start).count() / (double)calls;
        if (s > 0 && ns < best) {
            best = ns;
        }
    }
    std::printf("%.2f\n", best);
    return 0;
}
