# One image for every process; compose.yaml and fly.toml say which one runs.
FROM python:3.13-slim

ENV ENVIRONMENT=production \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 10001 fanfare
WORKDIR /app

# The dependencies change less often than the code, so they are a layer of their own. All of them come as wheels:
# nothing is compiled here and no compiler is in the image.
COPY requirements.txt ./
RUN pip install --only-binary :all: --require-hashes -r requirements.txt

# `pip install -e .` makes the command `fanfare`; setuptools, pinned and hashed, is there for this one step.
COPY . .
RUN sed -n '/^setuptools==/,/# via/p' requirements-dev.txt > /tmp/build.txt \
    && pip install --require-hashes -r /tmp/build.txt \
    && pip install --no-deps --no-build-isolation -e . \
    && pip uninstall --yes setuptools \
    && rm /tmp/build.txt \
    && install -d -o fanfare -g fanfare /app/.data

USER fanfare
EXPOSE 8000
CMD ["fanfare", "web"]
