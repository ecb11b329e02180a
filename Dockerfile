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

# Nothing is installed of the project itself: all its commands run from this folder.
COPY . .
RUN install -d -o fanfare -g fanfare /app/.data

USER fanfare
EXPOSE 8000
CMD ["python", "-m", "cli", "web"]
