# forgetmenot in a container. The main job on the bundled model, offline:
#
#   docker build -t forgetmenot .
#   docker run --rm -v "$PWD/runs:/data/runs" forgetmenot run
#
# PyTorch comes as the package index has it. Its own indexes have a build for CPUs alone and one for each CUDA:
# give the address of one of them (pytorch.org, "Get Started") as a build argument, and GPUs when it runs:
#
#   docker build -t forgetmenot:cuda --build-arg TORCH_INDEX=ADDRESS .
#   docker run --rm --gpus all -v "$PWD:/data" forgetmenot:cuda run --model MODEL --tasks mine.yaml
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""
COPY constraints.txt /constraints.txt
# torch first and alone: it is the largest layer, and changes least.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint /constraints.txt torch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /constraints.txt /wheels/*.whl && rm -r /wheels
# What is written belongs to a user, not to root; models and caches go to one folder that can be mounted.
RUN useradd --create-home --uid 1000 forgetmenot && mkdir /data /cache && chown forgetmenot /data /cache
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
USER forgetmenot
WORKDIR /data
ENTRYPOINT ["fmn"]
CMD ["--help"]
