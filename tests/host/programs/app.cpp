// A C++ program with libtorch, as users write them: a small classifier trained for a few steps, then used. Prints every
// result as text. Argument: how many times to repeat the inference (default 1), "small": a few
// operators instead, or "threads": quick_exit(3) while
// other threads are still calling (exit would destroy what PyTorch's own functions need, and abort, with or without us).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <cstdio>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

static void print(const char *name, const at::Tensor &value)
{
    at::Tensor flat = value.detach().to(at::kDouble).contiguous().flatten();
    std::printf("%s", name);
    for (int64_t i = 0; i < flat.numel() && i < 8; i++)
        std::printf(" %.9g", flat.data_ptr<double>()[i]);
    std::printf("\n");
}

// Values that look random and are the same everywhere.
static at::Tensor pattern(at::IntArrayRef sizes, double step)
{
    int64_t n = 1;
    for (int64_t size : sizes)
        n *= size;
    return at::sin(at::arange(n, at::kFloat) * step).reshape(sizes);
}

[[noreturn]] static void leave_while_threads_call()
{
    for (int i = 0; i < 3; i++)
        std::thread([] {
            at::Tensor x = pattern({64, 64}, 0.1);
            for (;;)
                at::softmax(at::mm(x, x) + x, 1);
        }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::puts("working");
    std::fflush(stdout);
    std::quick_exit(3);
}

// A few operators of different families: few enough to run once for every OpenCL call that they make.
static int run_small()
{
    at::Tensor table = pattern({50, 16}, 1.3);
    at::Tensor scores = at::softmax(at::mm(table, table.t()) + table.select(1, 0), 1);
    print("scores", scores);
    print("joined", at::cat({scores, scores}, 0).sum(0));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && std::strcmp(argv[1], "small") == 0)
        return run_small();
    if (argc > 1 && std::strcmp(argv[1], "threads") == 0)
        leave_while_threads_call();
    int repeats = argc > 1 ? std::atoi(argv[1]) : 1;
    at::Tensor table = pattern({50, 16}, 1.3), weight = pattern({16, 10}, 0.7), bias = pattern({10}, 0.3);
    weight.requires_grad_(true);
    bias.requires_grad_(true);
    at::Tensor words = at::arange(64, at::kLong).remainder(50), target = words.remainder(10);

    for (int step = 0; step < 3; step++) {
        at::Tensor hidden = at::embedding(table, words);
        hidden = at::layer_norm(hidden, {16});
        at::Tensor scores = at::addmm(bias, at::gelu(hidden), weight);
        at::Tensor loss = -at::log_softmax(scores, 1).gather(1, target.unsqueeze(1)).mean();
        loss.backward();
        at::NoGradGuard guard;
        weight.sub_(weight.grad() * 0.1);
        bias.sub_(bias.grad() * 0.1);
        weight.mutable_grad() = at::Tensor();
        bias.mutable_grad() = at::Tensor();
        print("loss", loss);
    }

    at::NoGradGuard guard;
    for (int i = 0; i < repeats; i++) {
        at::Tensor scores = at::softmax(at::mm(table, weight) + bias, 1);
        at::Tensor joined = at::cat({scores, scores * 2}, 0);
        at::Tensor best = scores.argmax(1);
        print("scores", scores);
        print("joined", joined.sum(0));
        print("best", best);
        print("masked", at::where(scores > 0.1, scores, at::zeros({1})).amax(0));
    }
    try {
        at::mm(table, table);
    } catch (const c10::Error &error) {
        std::printf("error %s\n", error.what_without_backtrace());
    }
    return 0;
}
