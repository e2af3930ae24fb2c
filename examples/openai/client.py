"""What a customer runs: OpenAI's own package, with another base URL and another key.

export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=tk_dev_...
python client.py            # a call, a stream, a tool
python client.py --spend    # a stream that goes on until the credits are used up
"""

from __future__ import annotations

import json
import sys

import openai

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def ask(client: openai.OpenAI, model: str, **bounds: int) -> None:
    """One call. What it cost is in the headers, which `with_raw_response` shows."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "Good morning, agent"}], **bounds
    )
    print(f"{model}: {raw.parse().choices[0].message.content}")
    charged, left = raw.headers["X-Credits-Charged"], raw.headers["X-Credits-Remaining"]
    print(f"  charged {charged} credits, {left} are left")


def listen(client: openai.OpenAI, text: str) -> None:
    """A stream, word by word."""
    with client.chat.completions.create(
        model="parrot-1", messages=[{"role": "user", "content": text}], stream=True
    ) as stream:
        print("streamed:", "".join(part.choices[0].delta.content or "" for part in stream))


def use_tool(client: openai.OpenAI) -> None:
    """The agent asks for a tool, and answers with what it gave."""
    messages = [{"role": "user", "content": "How is the weather in Lisbon?"}]
    asked = client.chat.completions.create(model="parrot-1", messages=messages, tools=[WEATHER])
    message = asked.choices[0].message
    (call,) = message.tool_calls or ()
    city = json.loads(call.function.arguments)["city"]
    print(f"the agent calls {call.function.name}({city})")
    result = {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"}
    answer = client.chat.completions.create(
        model="parrot-1",
        messages=[*messages, message.model_dump(exclude_none=True), result],
        tools=[WEATHER],
    )
    print(answer.choices[0].message.content)


def spend(client: openai.OpenAI) -> None:
    """A stream that costs more than there is ends with an error, a call that may is refused."""
    words = 0
    try:
        with client.chat.completions.create(
            model="parrot-1",
            messages=[{"role": "user", "content": "Count to 100000"}],
            stream=True,
        ) as stream:
            for part in stream:
                words += bool(part.choices[0].delta.content)
    except openai.APIError as error:
        print(f"the stream ended after {words} words: {error.code}")
    try:
        ask(client, "parrot-1", max_tokens=5_000)
    except openai.APIStatusError as error:
        print(f"{error.status_code} {error.code}: {error.body['message']}")


def main() -> None:
    """Do it all, or spend it all."""
    with openai.OpenAI() as client:
        if "--spend" in sys.argv:
            spend(client)
            return
        ask(client, "parrot-1")
        ask(client, "parrot-1-mini")
        listen(client, "Count to 12")
        use_tool(client)


if __name__ == "__main__":
    main()
