"""A headless Chromium for tests, driven over its debugging pipe with the standard library alone."""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time

import numpy as np

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'
SECONDS = 60  # for an answer, or for a condition to come true
KEYS = {
    'ArrowLeft': 37,
    'ArrowUp': 38,
    'ArrowRight': 39,
    'ArrowDown': 40,
    'Tab': 9,
    'Enter': 13,
    ' ': 32,
    'End': 35,
    'Home': 36,
}

# Chromium reads commands from descriptor 3 and answers on 4. They are moved there in a process of its own.
MOVE = """
import os, sys
read, write = (os.dup(int(number)) for number in sys.argv[1:3])
while read < 5 or write < 5:
    read, write = os.dup(read), os.dup(write)
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find():
    """The browser's path: the environment's CHROMIUM, or one of the usual names; None without one."""
    return os.environ.get('CHROMIUM') or next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page in one browser."""

    def __init__(self, profile):
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                '-c',
                MOVE,
                str(commands),
                str(answers),
                find(),
                '--headless=new',
                '--no-sandbox',
                '--remote-debugging-pipe',
                '--disable-gpu',
                '--disable-dev-shm-usage',
                '--no-first-run',
                '--hide-scrollbars',
                f'--user-data-dir={profile}',
                'about:blank',
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._number, self._buffer, self._session = 0, b'', None
        self.problems = []  # console errors and warnings, exceptions, failed loads
        target = self._page()
        self._session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self.send(f'{domain}.enable')

    def _page(self):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for target in self.send('Target.getTargets')['targetInfos']:
                if target['type'] == 'page':
                    return target['targetId']
        raise TimeoutError('the browser has no page')

    def close(self):
        try:
            self._session = None
            self.send('Browser.close')
        except OSError:
            pass
        os.close(self._out)
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            os.close(self._in)

    def send(self, method, **parameters):
        """Sends a command and returns its result."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, (method, answer)
                return answer['result']
            self._note(answer)

    def _receive(self):
        while b'\0' not in self._buffer:
            if not select.select([self._in], [], [], SECONDS)[0]:
                raise TimeoutError('the browser does not answer')
            data = os.read(self._in, 1 << 20)
            if not data:
                raise OSError('the browser has ended')
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def _note(self, event):
        parameters = event.get('params', {})
        if event.get('method') == 'Runtime.exceptionThrown':
            self.problems.append(json.dumps(parameters['exceptionDetails']))
        elif event.get('method') == 'Runtime.consoleAPICalled' and parameters['type'] in (
            'error',
            'warning',
            'assert',
        ):
            self.problems.append(json.dumps(parameters['args']))
        elif event.get('method') == 'Log.entryAdded' and parameters['entry']['level'] in ('error', 'warning'):
            self.problems.append(json.dumps(parameters['entry']))

    def open(self, path, width=1280, height=900, mobile=False, scale=1, dark=False):
        """Opens a file as from a disk, in a window of so many CSS pixels."""
        self.problems.clear()
        self.send(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )
        self.send('Emulation.setTouchEmulationEnabled', enabled=mobile)
        theme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.send('Emulation.setEmulatedMedia', features=[theme])
        self.send('Page.navigate', url='about:blank')
        self.send('Page.navigate', url=pathlib.Path(path).resolve().as_uri())
        self.wait('location.protocol === "file:" && document.readyState === "complete"')

    def run(self, expression):
        """The value of a JavaScript expression; promises are awaited."""
        result = self.send(
            'Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def wait(self, condition):
        """Waits until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def press(self, *keys):
        """Presses keys, one after the other, as a keyboard does."""
        for key in keys:
            text = {'Enter': '\r'}.get(key, key if len(key) == 1 else '')
            common = {'key': key, 'windowsVirtualKeyCode': KEYS.get(key, ord(key[0].upper()))}
            self.send('Input.dispatchKeyEvent', type='keyDown' if text else 'rawKeyDown', text=text, **common)
            self.send('Input.dispatchKeyEvent', type='keyUp', **common)
        self.settle()

    def drag(self, start, *points):
        """Presses the mouse at a point of the window, moves it over others, and lets go."""
        self._mouse('mouseMoved', start)
        self._mouse('mousePressed', start)
        for point in points:
            self._mouse('mouseMoved', point, buttons=1)
        self._mouse('mouseReleased', (start, *points)[-1])
        self.settle()

    def _mouse(self, kind, point, buttons=0):
        button = {'button': 'none'} if kind == 'mouseMoved' else {'button': 'left', 'clickCount': 1}
        self.send('Input.dispatchMouseEvent', type=kind, x=point[0], y=point[1], buttons=buttons, **button)

    def settle(self):
        """Waits for two frames, so that what was asked for is drawn."""
        self.run('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))')

    def pixels(self, selector):
        """A canvas' pixels, `[H, W, 3]`."""
        height, width, *values = self.run(f"""(() => {{
            const c = document.querySelector('{selector}'), copy = new OffscreenCanvas(c.width, c.height);
            const context = copy.getContext('2d', {{ willReadFrequently: true }});
            context.drawImage(c, 0, 0);
            return [c.height, c.width, ...context.getImageData(0, 0, c.width, c.height).data];
        }})()""")
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def screenshot(self, path, whole=False):
        """Writes a PNG of the window, or of the whole page."""
        self.settle()
        taken = self.send('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(taken['data']))
